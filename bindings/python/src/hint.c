/* Hints: what an engine tells of the future. Never waits; the GIL stays. */
#include "binding.h"

PyObject *store_hint(StoreObject *store, PyObject *const *arguments, Py_ssize_t count,
                     PyObject *names)
{
    static const Signature signature = {
        "hint", 12, 1, 1,
        {"kind", "space", "keys", "request", "session", "when_ns", "state", "step", "layer",
         "first", "number", "confidence"}};
    static const char *const kinds[] = {
        "chain", "pages", "progress", "session", "touched", "cancel", "release",
        "admitted", "evicted", "ended", NULL};
    static const char *const states[] = {
        "open", "tool-pending", "idle", "one-shot", "closed", NULL};
    PyObject *values[12];
    hearth_hint_message hint = {0};
    KeyList keys = {0};
    int choice;
    if (arguments_take(&signature, arguments, count, names, values, NULL) < 0) return NULL;
    if ((choice = take_choice(values[0], "kind", kinds)) < 0) return NULL;
    hint.kind = (uint32_t)choice;
    if (values[6] && (choice = take_choice(values[6], "state", states)) < 0) return NULL;
    hint.state = values[6] ? (uint32_t)choice : HEARTH_SESSION_OPEN;
    if ((values[3] && take_uint64(values[3], "request", &hint.request) < 0)
        || (values[4] && take_uint64(values[4], "session", &hint.session) < 0)
        || (values[5] && take_uint64(values[5], "when_ns", &hint.when_ns) < 0)
        || (values[7] && take_uint32(values[7], "step", &hint.step) < 0)
        || (values[8] && take_uint32(values[8], "layer", &hint.layer) < 0)
        || (values[9] && take_uint32(values[9], "first", &hint.first) < 0)
        || (values[10] && take_uint32(values[10], "number", &hint.number) < 0))
        return NULL;
    if (values[11]) {
        double confidence = PyFloat_AsDouble(values[11]);
        if (confidence == -1 && PyErr_Occurred()) return NULL;
        if (!(confidence >= 0 && confidence <= 1))
            return PyErr_Format(PyExc_ValueError, "confidence is %R; it is 0 to 1", values[11]);
        hint.confidence = (uint32_t)(confidence * 65536);
    }
    if (values[1] && values[1] != Py_None) {
        if (Py_TYPE(values[1]) != namespace_type)
            return PyErr_Format(PyExc_TypeError, "space is a %s; it is a Namespace, or None",
                                Py_TYPE(values[1])->tp_name);
        NamespaceObject *space = (NamespaceObject *)values[1];
        if (space->store != store)
            return PyErr_Format(PyExc_ValueError, "the namespace belongs to another store");
        if (namespace_check(space) < 0) return NULL;
        hint.space = space->handle;
    }
    if (values[2] && keys_take(values[2], &keys) < 0) return NULL;
    hint.key_count = keys.count;
    PyObject *result = NULL;
    if (keys.count && !hint.space) {
        PyErr_SetString(PyExc_ValueError, "keys go with the namespace that they are of: space");
    } else if (store_check(store) == 0) {
        int64_t taken = hearth_hint(store->handle, &hint, 1, keys.data, keys.data_bytes,
                                    keys.spans, keys.count);
        result = taken < 0 ? raise_error(taken) : PyLong_FromLongLong(taken);
    }
    keys_free(&keys);
    return result;
}
