/* Arguments: taken by position or keyword without making a tuple or a dictionary, and checked, with
 * messages that name the argument. */
#include "binding.h"

#include <math.h>
#include <string.h>

enum {
    GIVEN_MODE = 1,
    GIVEN_SHARDS = 2,
    GIVEN_BYTE_RANGE = 4,
    GIVEN_TIMEOUT = 8,
    GIVEN_PARENTS = 16,
    GIVEN_SHARD_LENGTHS = 32,
    GIVEN_DURABILITY = 64,
    GIVEN_REPLACE = 128,
    GIVEN_TTL_SECONDS = 256,
    GIVEN_GET = GIVEN_MODE | GIVEN_SHARDS | GIVEN_BYTE_RANGE | GIVEN_TIMEOUT,
    GIVEN_PUT = GIVEN_PARENTS | GIVEN_SHARD_LENGTHS | GIVEN_DURABILITY | GIVEN_REPLACE
        | GIVEN_TTL_SECONDS | GIVEN_TIMEOUT,
};

static const char *const how_names[] = {
    "mode",          "shards",     "byte_range", "timeout",     "parents",
    "shard_lengths", "durability", "replace",    "ttl_seconds", NULL,
};

int take_uint64(PyObject *value, const char *what, uint64_t *number)
{
    PyObject *index = PyNumber_Index(value);
    if (!index) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "%s is a %s; a whole number is needed", what,
                         Py_TYPE(value)->tp_name);
        return -1;
    }
    *number = PyLong_AsUnsignedLongLong(index);
    Py_DECREF(index);
    if (*number == UINT64_MAX && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError))
            PyErr_Format(PyExc_ValueError, "%s is %R; it is 0 to 2^64 - 1", what, value);
        return -1;
    }
    return 0;
}

int take_uint32(PyObject *value, const char *what, uint32_t *number)
{
    uint64_t wide;
    if (take_uint64(value, what, &wide) < 0) return -1;
    if (wide > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "%s is %R; it is 0 to 2^32 - 1", what, value);
        return -1;
    }
    *number = (uint32_t)wide;
    return 0;
}

int take_seconds(PyObject *value, const char *what, uint64_t *nanoseconds)
{
    double seconds = PyFloat_AsDouble(value);
    if (seconds == -1 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "%s is a %s; seconds are a number", what,
                         Py_TYPE(value)->tp_name);
        return -1;
    }
    if (!(seconds >= 0)) { /* also what is no number */
        PyErr_Format(PyExc_ValueError, "%s is %R; seconds are 0 or more", what, value);
        return -1;
    }
    /* 292 years are as good as no bound. */
    *nanoseconds = seconds >= 9.2e9 ? UINT64_MAX / 2 : (uint64_t)ceil(seconds * 1e9);
    if (*nanoseconds == 0) *nanoseconds = 1;
    return 0;
}

int take_choice(PyObject *value, const char *what, const char *const *choices)
{
    char all[256] = "";
    for (int index = 0; choices[index]; index++) {
        if (PyUnicode_Check(value) && PyUnicode_CompareWithASCIIString(value, choices[index]) == 0)
            return index;
        size_t used = strlen(all);
        snprintf(all + used, sizeof all - used, "%s\"%s\"", index ? ", " : "", choices[index]);
    }
    PyErr_Format(PyUnicode_Check(value) ? PyExc_ValueError : PyExc_TypeError,
                 "%s is %R; it is one of %s", what, value, all);
    return -1;
}

int take_key(PyObject *value, const char *what, Py_ssize_t index)
{
    char name[64];
    if (PyBytes_Check(value)) {
        Py_ssize_t length = PyBytes_GET_SIZE(value);
        if (length >= 1 && length <= KEY_BYTES_MAX) return 0;
        snprintf(name, sizeof name, index < 0 ? "%s" : "%s[%zd]", what, index);
        PyErr_Format(PyExc_ValueError, "%s has %zd bytes; a key has 1 to %d", name, length,
                     KEY_BYTES_MAX);
        return -1;
    }
    snprintf(name, sizeof name, index < 0 ? "%s" : "%s[%zd]", what, index);
    PyErr_Format(PyExc_TypeError, "%s is a %s; a key is bytes", name, Py_TYPE(value)->tp_name);
    return -1;
}

PyObject *take_items(PyObject *value, const char *what)
{
    if (PyTuple_CheckExact(value)) return new_reference(value);
    if (PyBytes_Check(value) || PyByteArray_Check(value) || PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%s is one %s; a list of them is needed", what,
                     Py_TYPE(value)->tp_name);
        return NULL;
    }
    PyObject *items = PySequence_Tuple(value);
    if (!items && PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_Format(PyExc_TypeError, "%s is a %s; a list is needed", what,
                     Py_TYPE(value)->tp_name);
    return items;
}

static int pair(PyObject *value, const char *what, uint64_t *first, uint64_t *second)
{
    if (!PyTuple_Check(value) || PyTuple_GET_SIZE(value) != 2) {
        PyErr_Format(PyExc_TypeError, "%s is %R; it is a tuple of two numbers", what, value);
        return -1;
    }
    if (take_uint64(PyTuple_GET_ITEM(value, 0), what, first) < 0) return -1;
    return take_uint64(PyTuple_GET_ITEM(value, 1), what, second);
}

/* Takes one argument by name: 1 if it is one of these, 0 if not. */
static int how_take(How *how, PyObject *name, PyObject *value)
{
    static const char *const modes[] = {"direct", "cached", NULL};
    static const char *const durabilities[] = {"volatile", "written", "durable", NULL};
    int index = 0, choice;
    uint64_t first, second;
    while (how_names[index] && PyUnicode_CompareWithASCIIString(name, how_names[index]) != 0)
        index++;
    if (!how_names[index]) return 0;
    uint32_t bit = UINT32_C(1) << index;
    if (value == Py_None
        && (bit & (GIVEN_SHARDS | GIVEN_BYTE_RANGE | GIVEN_TIMEOUT | GIVEN_PARENTS
                   | GIVEN_SHARD_LENGTHS)))
        return 1;
    how->given |= bit;
    switch (bit) {
    case GIVEN_MODE:
        if ((choice = take_choice(value, "mode", modes)) < 0) return -1;
        how->mode = (uint8_t)choice;
        break;
    case GIVEN_SHARDS:
        if (pair(value, "shards", &first, &second) < 0) return -1;
        if (first > UINT32_MAX || second > UINT32_MAX || second == 0) {
            PyErr_Format(PyExc_ValueError, "shards is %R; it is (first, count), count above 0",
                         value);
            return -1;
        }
        how->first_shard = (uint32_t)first;
        how->shard_count = (uint32_t)second;
        break;
    case GIVEN_BYTE_RANGE:
        if (pair(value, "byte_range", &first, &second) < 0) return -1;
        if (second == 0) {
            PyErr_Format(PyExc_ValueError, "byte_range is %R; it is (offset, length), length "
                         "above 0", value);
            return -1;
        }
        how->byte_offset = first;
        how->byte_length = second;
        break;
    case GIVEN_TIMEOUT: return take_seconds(value, "timeout", &how->timeout_ns) < 0 ? -1 : 1;
    case GIVEN_PARENTS: how->parents = value; break;
    case GIVEN_SHARD_LENGTHS: how->shard_lengths = value; break;
    case GIVEN_DURABILITY:
        if ((choice = take_choice(value, "durability", durabilities)) < 0) return -1;
        how->durability = (uint8_t)choice;
        break;
    case GIVEN_REPLACE:
        if ((choice = PyObject_IsTrue(value)) < 0) return -1;
        how->flags = choice ? HEARTH_REPLACE : 0;
        break;
    default: return take_uint32(value, "ttl_seconds", &how->time_to_live_s) < 0 ? -1 : 1;
    }
    return 1;
}

int how_check(const How *how, const char *function, hearth_kind kind)
{
    uint32_t allowed = kind == HEARTH_GET ? GIVEN_GET
        : kind == HEARTH_PUT              ? GIVEN_PUT
        : kind == HEARTH_DELETE           ? GIVEN_TIMEOUT
                                          : 0;
    for (int index = 0; how_names[index]; index++) {
        if (!(how->given & ~allowed & (UINT32_C(1) << index))) continue;
        PyErr_Format(PyExc_TypeError, "%s: '%s' does not go with a %s", function,
                     how_names[index], kind == HEARTH_GET ? "get"
                         : kind == HEARTH_PUT             ? "put"
                         : kind == HEARTH_DELETE          ? "delete"
                                                          : "call like this");
        return -1;
    }
    if ((how->given & GIVEN_SHARDS) && (how->given & GIVEN_BYTE_RANGE)) {
        PyErr_Format(PyExc_ValueError, "%s: shards and byte_range do not go together", function);
        return -1;
    }
    return 0;
}

int arguments_take(const Signature *signature, PyObject *const *arguments, Py_ssize_t count,
                   PyObject *names, PyObject **values, How *how)
{
    if (count > signature->positional) {
        PyErr_Format(PyExc_TypeError, "%s takes %d arguments by position, %zd were given",
                     signature->function, signature->positional, count);
        return -1;
    }
    for (int index = 0; index < signature->count; index++)
        values[index] = index < count ? arguments[index] : NULL;
    if (how) {
        memset(how, 0, sizeof *how);
        how->durability = HEARTH_WRITTEN;
    }
    Py_ssize_t keywords = names ? PyTuple_GET_SIZE(names) : 0;
    for (Py_ssize_t keyword = 0; keyword < keywords; keyword++) {
        PyObject *name = PyTuple_GET_ITEM(names, keyword), *value = arguments[count + keyword];
        int index = 0;
        while (index < signature->count
               && PyUnicode_CompareWithASCIIString(name, signature->names[index]) != 0)
            index++;
        if (index < signature->count) {
            if (values[index]) {
                PyErr_Format(PyExc_TypeError, "%s: '%U' was given twice", signature->function,
                             name);
                return -1;
            }
            values[index] = value;
            continue;
        }
        int taken = how ? how_take(how, name, value) : 0;
        if (taken < 0) return -1;
        if (taken == 0) {
            PyErr_Format(PyExc_TypeError, "%s has no argument '%U'", signature->function, name);
            return -1;
        }
    }
    for (int index = 0; index < signature->required; index++) {
        if (values[index]) continue;
        PyErr_Format(PyExc_TypeError, "%s: '%s' is missing", signature->function,
                     signature->names[index]);
        return -1;
    }
    return 0;
}

void keys_free(KeyList *list)
{
    PyMem_Free(list->data);
    PyMem_Free(list->spans);
    list->data = NULL;
    list->spans = NULL;
}

int keys_take(PyObject *keys, KeyList *list)
{
    memset(list, 0, sizeof *list);
    /* Nothing runs between here and the last look at the items, so they may stay where they are. */
    PyObject *items = PyList_CheckExact(keys) ? new_reference(keys) : take_items(keys, "keys");
    if (!items) return -1;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(items);
    PyObject **values = PySequence_Fast_ITEMS(items);
    uint64_t bytes = 0;
    for (Py_ssize_t index = 0; index < count; index++) {
        if (take_key(values[index], "keys", index) < 0) goto failed;
        bytes += (uint64_t)PyBytes_GET_SIZE(values[index]);
    }
    if (bytes > UINT32_MAX || count > (Py_ssize_t)(UINT32_MAX / sizeof *list->spans)) {
        PyErr_SetString(PyExc_ValueError, "keys: more than 4 GiB of them in one call");
        goto failed;
    }
    list->data = PyMem_Malloc(bytes + 1);
    list->spans = PyMem_Malloc(((size_t)count + 1) * sizeof *list->spans);
    if (!list->data || !list->spans) {
        keys_free(list);
        PyErr_NoMemory();
        goto failed;
    }
    for (Py_ssize_t index = 0; index < count; index++) {
        uint32_t length = (uint32_t)PyBytes_GET_SIZE(values[index]);
        memcpy(list->data + list->data_bytes, PyBytes_AS_STRING(values[index]), length);
        list->spans[index] = (hearth_span){(uint32_t)list->data_bytes, length};
        list->data_bytes += length;
    }
    list->count = (uint32_t)count;
    Py_DECREF(items);
    return 0;
failed:
    Py_DECREF(items);
    return -1;
}
