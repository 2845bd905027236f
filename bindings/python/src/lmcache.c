/* Keys of LMCache's native connectors, taken apart: text, model@rank@group@hash[@salt] with numbers
 * and hash in hexadecimal, into the form of hearth/lmcache/keys.py. A lookup of many keys is made
 * of little else, and each key may have a rank of its own. What is not well formed, or not all of
 * one namespace, is left to keys.py, which tells the reason: nothing is refused here. */
#include "binding.h"

#define FORM 1
#define HEAD_BYTES 15 /* form, rank, group, length of the salt */

typedef struct Text {
    const char *model, *hash, *salt;
    size_t model_length, hash_digits, salt_length;
    uint64_t rank, group;
} Text;

static int hex_digit(char character)
{
    if (character >= '0' && character <= '9') return character - '0';
    character |= 0x20;
    return character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
}

/* A number of 1 to `most` digits up to an '@'; behind which it continues, or NULL. */
static const char *number(const char *text, const char *end, int most, uint64_t *value)
{
    const char *start = text;
    for (*value = 0; text < end && *text != '@'; text++) {
        int one = hex_digit(*text);
        if (one < 0 || text - start == most) return NULL;
        *value = *value << 4 | (uint64_t)one;
    }
    return text == start || text == end ? NULL : text + 1;
}

/* Whether the text is a key, and its parts. */
static bool take_apart(const char *text, size_t length, Text *parts)
{
    const char *end = text + length, *at = memchr(text, '@', length);
    if (!at) return false;
    parts->model = text;
    parts->model_length = (size_t)(at - text);
    if (!(at = number(at + 1, end, 16, &parts->rank))) return false;
    if (!(at = number(at, end, 8, &parts->group))) return false;
    const char *next = memchr(at, '@', (size_t)(end - at));
    parts->hash = at;
    parts->hash_digits = (size_t)((next ? next : end) - at);
    parts->salt = next ? next + 1 : end;
    parts->salt_length = (size_t)(end - parts->salt);
    if (memchr(parts->salt, '@', parts->salt_length)) return false;
    return parts->hash_digits > 0 && parts->hash_digits % 2 == 0
        && HEAD_BYTES + parts->salt_length + parts->hash_digits / 2 <= KEY_BYTES_MAX;
}

static uint8_t *big_endian(uint8_t *to, uint64_t value, int bytes)
{
    for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) *to++ = (uint8_t)(value >> shift);
    return to;
}

/* The key of the parts, or NULL; without an error set where the hash is no hexadecimal. */
static PyObject *encode(const Text *parts)
{
    size_t hash_bytes = parts->hash_digits / 2;
    PyObject *key = PyBytes_FromStringAndSize(
        NULL, (Py_ssize_t)(HEAD_BYTES + parts->salt_length + hash_bytes));
    if (!key) return NULL;
    uint8_t *to = (uint8_t *)PyBytes_AS_STRING(key);
    *to++ = FORM;
    to = big_endian(to, parts->rank, 8);
    to = big_endian(to, parts->group, 4);
    to = big_endian(to, parts->salt_length, 2);
    memcpy(to, parts->salt, parts->salt_length);
    to += parts->salt_length;
    for (size_t place = 0; place < hash_bytes; place++) {
        int high = hex_digit(parts->hash[2 * place]), low = hex_digit(parts->hash[2 * place + 1]);
        if (high < 0 || low < 0) {
            Py_DECREF(key);
            return NULL;
        }
        *to++ = (uint8_t)(high << 4 | low);
    }
    return key;
}

/* Whether two keys belong to one family: the world size is in the rank's upper bits. */
static bool related(const Text *one, const Text *other)
{
    return one->model_length == other->model_length
        && memcmp(one->model, other->model, one->model_length) == 0
        && ((one->rank ^ other->rank) >> 24 & 0xff) == 0;
}

PyObject *lmcache_keys(PyObject *module, PyObject *value)
{
    (void)module;
    PyObject *texts = take_items(value, "keys");
    if (!texts) return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(texts);
    PyObject *list = PyList_New(count), *result = NULL;
    Text first = {0};
    for (Py_ssize_t index = 0; list && index < count; index++) {
        PyObject *text = PyTuple_GET_ITEM(texts, index), *key = NULL;
        Py_ssize_t length = 0;
        /* The tuple holds the text, and the text what this points to. */
        const char *data = PyUnicode_Check(text) ? PyUnicode_AsUTF8AndSize(text, &length) : NULL;
        Text parts;
        if (data && take_apart(data, (size_t)length, &parts)) {
            if (index == 0) first = parts;
            if (related(&first, &parts)) key = encode(&parts);
        }
        if (key)
            PyList_SET_ITEM(list, index, key);
        else
            Py_CLEAR(list);
    }
    if (list && count > 0)
        result = Py_BuildValue(
            "s#IN", first.model, (Py_ssize_t)first.model_length,
            (unsigned)(first.rank >> 24 & 0xff), list);
    else
        Py_XDECREF(list);
    Py_DECREF(texts);
    if (result) return result;
    /* Surrogates are no UTF-8: keys.py knows what to do. */
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return NULL;
    PyErr_Clear();
    Py_RETURN_NONE;
}
