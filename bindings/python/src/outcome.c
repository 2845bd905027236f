/* Errors of calls and results of operations as Python objects. Names of statuses and reasons are
 * the library's own, made once and interned, so that comparing one is comparing two pointers. */
#include "binding.h"

#include <string.h>

#define STATUS_COUNT (HEARTH_DONE + 1)
#define REASON_COUNT (HEARTH_REASON_DEADLINE + 1)

PyObject *result_type, *entry_type;
static PyObject *error_type, *locked_type, *closed_type, *forked_type, *format_type;
static PyObject *statuses[STATUS_COUNT], *reasons[REASON_COUNT], *tiers[3], *unknown, *zero;

int outcome_initialize(PyObject *types)
{
    const struct {
        const char *name;
        PyObject **type;
    } wanted[] = {
        {"Result", &result_type},       {"Entry", &entry_type},
        {"Error", &error_type},         {"LockedError", &locked_type},
        {"ClosedError", &closed_type},  {"ForkedError", &forked_type},
        {"FormatError", &format_type},
    };
    for (size_t index = 0; index < sizeof wanted / sizeof *wanted; index++) {
        *wanted[index].type = PyObject_GetAttrString(types, wanted[index].name);
        if (!*wanted[index].type) return -1;
    }
    /* Their instances are made below as the tuples that they are. */
    if (!PyType_IsSubtype((PyTypeObject *)result_type, &PyTuple_Type)
        || !PyType_IsSubtype((PyTypeObject *)entry_type, &PyTuple_Type)) {
        PyErr_SetString(PyExc_SystemError, "hearth._types: Result and Entry are no tuples");
        return -1;
    }
    for (uint32_t index = 0; index < STATUS_COUNT; index++)
        if (!(statuses[index] = PyUnicode_InternFromString(hearth_status_name(index)))) return -1;
    for (uint32_t index = 1; index < REASON_COUNT; index++)
        if (!(reasons[index] = PyUnicode_InternFromString(hearth_reason_name(index)))) return -1;
    reasons[0] = tiers[0] = PyUnicode_InternFromString("");
    tiers[1] = PyUnicode_InternFromString("dram");
    tiers[2] = PyUnicode_InternFromString("device");
    unknown = PyUnicode_InternFromString("?");
    zero = PyLong_FromLong(0);
    return reasons[0] && tiers[1] && tiers[2] && unknown && zero ? 0 : -1;
}

static PyObject *raise_as(PyObject *type, int32_t code, const char *message)
{
    /* A path may be in it, and it may be cut in the middle of a character. */
    PyObject *text = PyUnicode_DecodeUTF8(message, (Py_ssize_t)strlen(message), "replace");
    if (!text) return NULL;
    PyObject *error = PyObject_CallFunctionObjArgs(type, text, NULL);
    Py_DECREF(text);
    if (!error) return NULL;
    PyObject *number = PyLong_FromLong(code);
    PyObject *name = PyUnicode_FromString(hearth_error_name(code));
    if (number && name && PyObject_SetAttrString(error, "code", number) == 0
        && PyObject_SetAttrString(error, "name", name) == 0)
        PyErr_SetObject(type, error);
    Py_XDECREF(number);
    Py_XDECREF(name);
    Py_DECREF(error);
    return NULL;
}

PyObject *raise_error(int64_t code)
{
    char message[1024];
    const char *text = hearth_error_message();
    if (!text || !*text) text = hearth_error_name((int32_t)code);
    snprintf(message, sizeof message, "%s", text);
    PyObject *type = code == HEARTH_E_LOCKED              ? locked_type
        : code == HEARTH_E_CLOSED || code == HEARTH_E_HANDLE ? closed_type
        : code == HEARTH_E_FORKED                         ? forked_type
        : code == HEARTH_E_FORMAT                         ? format_type
                                                          : error_type;
    return raise_as(type, (int32_t)code, message);
}

PyObject *raise_closed(const char *what)
{
    char message[128];
    snprintf(message, sizeof message, "the %s is closed", what);
    return raise_as(closed_type, HEARTH_E_CLOSED, message);
}

static PyObject *number_of(uint64_t value)
{
    return value == 0 ? new_reference(zero) : PyLong_FromUnsignedLongLong(value);
}

PyObject *outcome_result(const Outcome *outcome)
{
    PyTypeObject *type = (PyTypeObject *)result_type;
    PyObject *result = type->tp_alloc(type, 8);
    if (!result) return NULL;
    PyObject *status = outcome->status < STATUS_COUNT ? statuses[outcome->status] : unknown;
    PyObject *reason = outcome->reason < REASON_COUNT ? reasons[outcome->reason] : unknown;
    PyObject *tier = outcome->tier < 3 ? tiers[outcome->tier] : unknown;
    PyTuple_SET_ITEM(result, 0, new_reference(status));
    PyTuple_SET_ITEM(result, 1, new_reference(reason));
    PyTuple_SET_ITEM(result, 2, new_reference(tier));
    PyTuple_SET_ITEM(result, 3, number_of(outcome->version));
    PyTuple_SET_ITEM(result, 4, number_of(outcome->length));
    PyTuple_SET_ITEM(result, 5, number_of(outcome->delivered));
    PyTuple_SET_ITEM(result, 6, PyLong_FromLong(outcome->system_error));
    PyTuple_SET_ITEM(result, 7, number_of(outcome->retry_ns));
    for (int index = 3; index < 8; index++) {
        if (PyTuple_GET_ITEM(result, index)) continue;
        Py_DECREF(result);
        return NULL;
    }
    return result;
}

PyObject *raise_status(const Outcome *outcome, const char *function)
{
    char message[160];
    snprintf(message, sizeof message, "%s: %s%s%s", function, hearth_status_name(outcome->status),
             outcome->system_error ? ", " : "",
             outcome->system_error ? strerror(outcome->system_error) : "");
    int32_t code = outcome->status == HEARTH_FAILED ? HEARTH_E_IO
        : outcome->status == HEARTH_THROTTLED       ? HEARTH_E_RESOURCE
        : outcome->status == HEARTH_TIMED_OUT       ? HEARTH_E_TIMEOUT
        : outcome->status == HEARTH_CANCELLED       ? HEARTH_E_CLOSED
                                                    : HEARTH_E_ARGUMENT;
    return raise_as(code == HEARTH_E_CLOSED ? closed_type : error_type, code, message);
}
