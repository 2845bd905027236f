/* Namespace: lookups, answered from memory with the GIL held, and batches that wait. */
#include "binding.h"

#include <float.h>
#include <structmember.h>
#include <string.h>
#include <sys/mman.h>

/* The largest block there is (DESIGN: at most 64 MiB). */
#define BLOCK_BYTES_MAX ((size_t)64 << 20)

PyTypeObject *namespace_type;

int namespace_check(const NamespaceObject *space)
{
    if (space->closed) {
        raise_closed("namespace");
        return -1;
    }
    return store_check(space->store);
}

static void dealloc(PyObject *self)
{
    NamespaceObject *space = (NamespaceObject *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (!space->closed && space->store && space->store->state == STORE_OPEN)
        hearth_namespace_close(space->handle);
    Py_XDECREF(space->store);
    type->tp_free(self);
    Py_DECREF(type);
}

/* The fields as hearth_field[], their text kept alive by *items. Their count, or -1. */
static Py_ssize_t take_fields(PyObject *fields, PyObject **items, hearth_field **made)
{
    PyObject *pairs = PyMapping_Check(fields) && !PySequence_Check(fields)
        ? PyMapping_Items(fields)
        : new_reference(fields);
    if (!pairs) return -1;
    *items = take_items(pairs, "fields");
    Py_DECREF(pairs);
    if (!*items) return -1;
    Py_ssize_t count = PyTuple_GET_SIZE(*items);
    *made = PyMem_Calloc((size_t)count + 1, sizeof **made);
    if (!*made) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *pair = PyTuple_GET_ITEM(*items, index);
        Py_ssize_t lengths[2];
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2
            || !PyUnicode_Check(PyTuple_GET_ITEM(pair, 0))
            || !PyUnicode_Check(PyTuple_GET_ITEM(pair, 1))) {
            PyErr_Format(PyExc_TypeError, "fields[%zd] is %R; a field is a name and a value, "
                         "both str", index, pair);
            return -1;
        }
        (*made)[index].name = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(pair, 0), &lengths[0]);
        (*made)[index].value = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(pair, 1), &lengths[1]);
        if (!(*made)[index].name || !(*made)[index].value) return -1;
        if (strlen((*made)[index].name) != (size_t)lengths[0]
            || strlen((*made)[index].value) != (size_t)lengths[1]) {
            PyErr_Format(PyExc_ValueError, "fields[%zd] holds a NUL character", index);
            return -1;
        }
    }
    return count;
}

PyObject *store_namespace(StoreObject *store, PyObject *const *arguments, Py_ssize_t count,
                          PyObject *names)
{
    static const Signature signature = {
        "namespace", 4, 1, 1, {"fields", "layout", "ttl_seconds", "cap_bytes"}};
    static const char *const layouts[] = {"packed", "aligned", NULL};
    PyObject *values[4], *items = NULL;
    hearth_field *fields = NULL;
    NamespaceObject *space = NULL;
    int layout = 0;
    uint32_t time_to_live = 0;
    uint64_t cap = 0;
    if (arguments_take(&signature, arguments, count, names, values, NULL) < 0) return NULL;
    if (values[1] && (layout = take_choice(values[1], "layout", layouts)) < 0) return NULL;
    if (values[2] && take_uint32(values[2], "ttl_seconds", &time_to_live) < 0) return NULL;
    if (values[3] && take_uint64(values[3], "cap_bytes", &cap) < 0) return NULL;
    Py_ssize_t number = take_fields(values[0], &items, &fields);
    if (number < 0 || store_check(store) < 0) goto done;
    hearth_namespace handle = 0;
    int32_t error;
    Py_BEGIN_ALLOW_THREADS
    error = hearth_namespace_open(store->handle, fields, (uint32_t)number, (uint32_t)layout,
                                  time_to_live, cap, &handle);
    Py_END_ALLOW_THREADS
    if (error < 0) {
        raise_error(error);
        goto done;
    }
    space = (NamespaceObject *)namespace_type->tp_alloc(namespace_type, 0);
    if (!space) {
        hearth_namespace_close(handle);
        goto done;
    }
    Py_INCREF(store);
    space->store = store;
    space->handle = handle;
done:
    PyMem_Free(fields);
    Py_XDECREF(items);
    return (PyObject *)space;
}

static PyObject *space_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    NamespaceObject *space = (NamespaceObject *)self;
    if (space->closed) Py_RETURN_NONE;
    space->closed = true;
    if (space->store->state != STORE_OPEN) Py_RETURN_NONE;
    int32_t error = hearth_namespace_close(space->handle);
    if (error < 0 && error != HEARTH_E_FORKED) return raise_error(error);
    Py_RETURN_NONE;
}

static PyObject *purge(PyObject *self, PyObject *unused)
{
    (void)unused;
    NamespaceObject *space = (NamespaceObject *)self;
    if (namespace_check(space) < 0) return NULL;
    int32_t error;
    Py_BEGIN_ALLOW_THREADS
    error = hearth_namespace_purge(space->handle);
    Py_END_ALLOW_THREADS
    if (error < 0) return raise_error(error);
    space->closed = true;
    Py_RETURN_NONE;
}

/* --- Lookups: the GIL stays, since giving it up costs more than the answer --- */

static PyObject *contains(NamespaceObject *space, PyObject *const *arguments, Py_ssize_t count,
                          PyObject *names)
{
    static const Signature signature = {"contains", 1, 1, 1, {"key"}};
    PyObject *key;
    if (count == 1 && !names)
        key = arguments[0];
    else if (arguments_take(&signature, arguments, count, names, &key, NULL) < 0)
        return NULL;
    if (take_key(key, "key", -1) < 0 || namespace_check(space) < 0) return NULL;
    hearth_span span = {0, (uint32_t)PyBytes_GET_SIZE(key)};
    uint8_t found;
    int64_t number =
        hearth_contains(space->handle, PyBytes_AS_STRING(key), span.length, &span, 1, &found);
    if (number < 0) return raise_error(number);
    return PyBool_FromLong(found);
}

static PyObject *contains_many(NamespaceObject *space, PyObject *const *arguments,
                               Py_ssize_t count, PyObject *names)
{
    static const Signature signature = {"contains_many", 1, 1, 1, {"keys"}};
    PyObject *value;
    KeyList keys;
    if (arguments_take(&signature, arguments, count, names, &value, NULL) < 0) return NULL;
    if (keys_take(value, &keys) < 0) return NULL;
    PyObject *list = NULL;
    uint8_t *found = NULL;
    if (namespace_check(space) < 0) goto done;
    if (!(found = PyMem_Calloc((size_t)keys.count + 1, 1))) {
        PyErr_NoMemory();
        goto done;
    }
    int64_t number = keys.count
        ? hearth_contains(space->handle, keys.data, keys.data_bytes, keys.spans, keys.count, found)
        : 0;
    if (number < 0) {
        raise_error(number);
        goto done;
    }
    if (!(list = PyList_New(keys.count))) goto done;
    for (uint32_t index = 0; index < keys.count; index++)
        PyList_SET_ITEM(list, index, new_reference(found[index] ? Py_True : Py_False));
done:
    PyMem_Free(found);
    keys_free(&keys);
    return list;
}

static PyObject *prefix(NamespaceObject *space, PyObject *const *arguments, Py_ssize_t count,
                        PyObject *names)
{
    static const Signature signature = {"prefix", 1, 1, 1, {"keys"}};
    PyObject *value;
    KeyList keys;
    if (arguments_take(&signature, arguments, count, names, &value, NULL) < 0) return NULL;
    if (keys_take(value, &keys) < 0) return NULL;
    PyObject *result = NULL;
    if (namespace_check(space) == 0) {
        int64_t number = keys.count
            ? hearth_prefix(space->handle, keys.data, keys.data_bytes, keys.spans, keys.count)
            : 0;
        result = number < 0 ? raise_error(number) : PyLong_FromLongLong(number);
    }
    keys_free(&keys);
    return result;
}

/* Optional numbers of an ask. */
static int take_ask(PyObject *const *values, hearth_prefix_ask *ask)
{
    if (take_uint32(values[1], "tokens_per_block", &ask->tokens_per_block) < 0) return -1;
    if (ask->tokens_per_block == 0) {
        PyErr_SetString(PyExc_ValueError, "tokens_per_block is 0; it is 1 to 2^32 - 1");
        return -1;
    }
    if (values[2] && values[2] != Py_None) {
        double rate = PyFloat_AsDouble(values[2]);
        if (rate == -1 && PyErr_Occurred()) return -1;
        if (!(rate >= 0 && rate <= DBL_MAX)) {
            PyErr_Format(PyExc_ValueError, "tokens_per_second is %R; it is 0 or more", values[2]);
            return -1;
        }
        ask->tokens_per_second = rate;
    }
    if (values[3] && take_uint64(values[3], "tokens_after", &ask->tokens_after) < 0) return -1;
    if (values[4] && take_uint32(values[4], "layers", &ask->layers) < 0) return -1;
    if (values[5] && take_seconds(values[5], "starts_in", &ask->starts_in_ns) < 0) return -1;
    if (values[6] && take_seconds(values[6], "loads_in", &ask->loads_in_ns) < 0) return -1;
    return 0;
}

static PyObject *prefix_worth(NamespaceObject *space, PyObject *const *arguments,
                              Py_ssize_t count, PyObject *names)
{
    static const Signature signature = {
        "prefix_worth", 7, 2, 1,
        {"keys", "tokens_per_block", "tokens_per_second", "tokens_after", "layers", "starts_in",
         "loads_in"}};
    PyObject *values[7];
    KeyList keys;
    hearth_prefix_ask ask = {0};
    if (arguments_take(&signature, arguments, count, names, values, NULL) < 0) return NULL;
    if (take_ask(values, &ask) < 0 || keys_take(values[0], &keys) < 0) return NULL;
    PyObject *result = NULL;
    if (namespace_check(space) == 0) {
        int64_t number = hearth_prefix_worth(space->handle, keys.data, keys.data_bytes, keys.spans,
                                             keys.count, &ask);
        result = number < 0
            ? raise_error(number)
            : Py_BuildValue("{s:L,s:K,s:K,s:d,s:d,s:O}", "blocks", (long long)number, "present",
                            (unsigned long long)ask.present, "declined_bytes",
                            (unsigned long long)ask.declined_bytes, "ready_in",
                            (double)ask.ready_in_ns / 1e9, "gain", (double)ask.gain_ns / 1e9,
                            "is_probe", ask.is_probe ? Py_True : Py_False);
    }
    keys_free(&keys);
    return result;
}

/* --- Batches that wait --- */

static PyObject *transfer(NamespaceObject *space, hearth_kind kind, const Signature *signature,
                          PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    PyObject *values[2] = {NULL, NULL};
    How how;
    if (arguments_take(signature, arguments, count, names, values, &how) < 0) return NULL;
    if (how_check(&how, signature->function, kind) < 0 || namespace_check(space) < 0) return NULL;
    if (kind == HEARTH_PIN) {
        uint64_t seconds;
        if (take_seconds(values[1], "seconds", &seconds) < 0) return NULL;
        how.timeout_ns = seconds;
    }
    Sources sources = {.buffers = values[1]};
    bool has_buffers = kind == HEARTH_GET || kind == HEARTH_PUT;
    Batch *batch = batch_make(space, kind, values[0], has_buffers ? &sources : NULL, &how);
    return batch ? transfer_run(batch) : NULL;
}

#define TRANSFER(name, kind, ...)                                                               \
    static PyObject *name(NamespaceObject *space, PyObject *const *arguments, Py_ssize_t count, \
                          PyObject *names)                                                      \
    {                                                                                           \
        static const Signature signature = __VA_ARGS__;                                         \
        return transfer(space, kind, &signature, arguments, count, names);                      \
    }
TRANSFER(get, HEARTH_GET, {"get", 2, 2, 2, {"keys", "buffers"}})
TRANSFER(put, HEARTH_PUT, {"put", 2, 2, 2, {"keys", "buffers"}})
TRANSFER(delete_, HEARTH_DELETE, {"delete", 1, 1, 1, {"keys"}})
TRANSFER(touch, HEARTH_TOUCH, {"touch", 1, 1, 1, {"keys"}})
TRANSFER(pin, HEARTH_PIN, {"pin", 2, 2, 2, {"keys", "seconds"}})
TRANSFER(unpin, HEARTH_UNPIN, {"unpin", 1, 1, 1, {"keys"}})

/* The block's length is not known beforehand, so the destination is address space for the largest
 * one; only the pages that the block fills are ever there. */
static PyObject *read_block(NamespaceObject *space, PyObject *const *arguments, Py_ssize_t count,
                            PyObject *names)
{
    static const Signature signature = {"read", 1, 1, 1, {"key"}};
    PyObject *key;
    if (arguments_take(&signature, arguments, count, names, &key, NULL) < 0) return NULL;
    if (take_key(key, "key", -1) < 0 || namespace_check(space) < 0) return NULL;
    void *memory = mmap(NULL, BLOCK_BYTES_MAX, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return PyErr_SetFromErrno(PyExc_OSError);
    PyObject *keys = Py_BuildValue("(O)", key);
    PyObject *buffers = Py_BuildValue("((KK))", (unsigned long long)(uintptr_t)memory,
                                      (unsigned long long)BLOCK_BYTES_MAX);
    PyObject *result = NULL;
    Outcome outcome;
    How how = {0};
    Sources sources = {.buffers = buffers};
    Batch *batch =
        keys && buffers ? batch_make(space, HEARTH_GET, keys, &sources, &how) : NULL;
    int done = batch ? transfer_one(batch, &outcome) : -1;
    if (done == 0 && outcome.status == HEARTH_HIT)
        result = PyBytes_FromStringAndSize(memory, (Py_ssize_t)outcome.delivered);
    else if (done == 0 && outcome.status == HEARTH_MISS)
        result = new_reference(Py_None);
    else if (done == 0)
        raise_status(&outcome, "read");
    if (done != -2) munmap(memory, BLOCK_BYTES_MAX);
    Py_XDECREF(keys);
    Py_XDECREF(buffers);
    return result;
}

#define LIST_ROOM 256

static PyObject *entry_of(const hearth_entry *entry, const char *data)
{
    PyTypeObject *type = (PyTypeObject *)entry_type;
    PyObject *made = type->tp_alloc(type, 4);
    if (!made) return NULL;
    PyTuple_SET_ITEM(made, 0, PyBytes_FromStringAndSize(data + entry->key.offset,
                                                        entry->key.length));
    PyTuple_SET_ITEM(made, 1, PyLong_FromUnsignedLongLong(entry->length));
    PyTuple_SET_ITEM(made, 2, PyLong_FromUnsignedLongLong(entry->version));
    PyTuple_SET_ITEM(made, 3, PyLong_FromUnsignedLong(entry->shard_count));
    for (int index = 0; index < 4; index++) {
        if (PyTuple_GET_ITEM(made, index)) continue;
        Py_DECREF(made);
        return NULL;
    }
    return made;
}

/* _list_part(cursor): the next cursor, 0 at the end, and some entries. */
static PyObject *list_part(PyObject *self, PyObject *value)
{
    NamespaceObject *space = (NamespaceObject *)self;
    uint64_t cursor;
    if (take_uint64(value, "cursor", &cursor) < 0 || namespace_check(space) < 0) return NULL;
    hearth_entry *entries = PyMem_RawMalloc(LIST_ROOM * sizeof *entries);
    char *data = PyMem_RawMalloc(LIST_ROOM * KEY_BYTES_MAX);
    PyObject *list = NULL, *result = NULL;
    int64_t count;
    if (!entries || !data) {
        PyErr_NoMemory();
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    count = hearth_list(space->handle, &cursor, entries, LIST_ROOM, data,
                        LIST_ROOM * KEY_BYTES_MAX);
    Py_END_ALLOW_THREADS
    if (count < 0) {
        raise_error(count);
        goto done;
    }
    if (!(list = PyList_New((Py_ssize_t)count))) goto done;
    for (Py_ssize_t index = 0; index < (Py_ssize_t)count; index++) {
        PyObject *entry = entry_of(&entries[index], data);
        if (!entry) goto done;
        PyList_SET_ITEM(list, index, entry);
    }
    result = Py_BuildValue("(KO)", (unsigned long long)cursor, list);
done:
    Py_XDECREF(list);
    PyMem_RawFree(entries);
    PyMem_RawFree(data);
    return result;
}

#define KEYWORDS (METH_FASTCALL | METH_KEYWORDS)
#define FUNCTION(name) (PyCFunction)(void (*)(void))(name)

static PyMethodDef methods[] = {
    {"close", space_close, METH_NOARGS,
     "close($self)\n--\n\nGives the handle back; the blocks stay. Again: nothing."},
    {"purge", purge, METH_NOARGS,
     "purge($self)\n--\n\nRemoves every block of the namespace, durably, and closes it."},
    {"contains", FUNCTION(contains), KEYWORDS,
     "contains($self, key)\n--\n\nWhether the block is there. From memory."},
    {"contains_many", FUNCTION(contains_many), KEYWORDS,
     "contains_many($self, keys)\n--\n\nWhether each block is there. From memory."},
    {"prefix", FUNCTION(prefix), KEYWORDS,
     "prefix($self, keys)\n--\n\nHow many are there without a gap. From memory."},
    {"prefix_worth", FUNCTION(prefix_worth), KEYWORDS,
     "prefix_worth($self, keys, *, tokens_per_block, tokens_per_second=None, tokens_after=0,\n"
     "             layers=1, starts_in=0, loads_in=0)\n"
     "--\n\nHow many are worth loading: sooner in memory than computed. A dict."},
    {"get", FUNCTION(get), KEYWORDS,
     "get($self, keys, buffers, *, mode='direct', shards=None, byte_range=None, timeout=None)\n"
     "--\n\nReads a block a key. One Result a key."},
    {"put", FUNCTION(put), KEYWORDS,
     "put($self, keys, buffers, *, parents=None, shard_lengths=None, durability='written', "
     "replace=False, ttl_seconds=0, timeout=None)\n--\n\nStores a block a key."},
    {"delete", FUNCTION(delete_), KEYWORDS,
     "delete($self, keys, *, timeout=None)\n--\n\nRemoves the keys' blocks."},
    {"touch", FUNCTION(touch), KEYWORDS,
     "touch($self, keys)\n--\n\nThe blocks were used elsewhere: keeps them longer."},
    {"pin", FUNCTION(pin), KEYWORDS,
     "pin($self, keys, seconds)\n--\n\nKeeps the blocks from eviction for so long."},
    {"unpin", FUNCTION(unpin), KEYWORDS, "unpin($self, keys)\n--\n\nEnds a pin."},
    {"read", FUNCTION(read_block), KEYWORDS,
     "read($self, key)\n--\n\nThe block's bytes; None if it is not there."},
    {"_list_part", list_part, METH_O, "_list_part($self, cursor, /)\n--\n\n"},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"store", T_OBJECT_EX, offsetof(NamespaceObject, store), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Where keys live; Store.namespace opens one."},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "hearth.Namespace",
    .basicsize = sizeof(NamespaceObject),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

int namespace_prepare(PyObject *module)
{
    return (namespace_type = make_type(module, &spec)) ? 0 : -1;
}
