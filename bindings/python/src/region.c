/* Region: registered memory. The buffer it was made of stays held until it is unregistered, or the
 * store is closed; no batch may be using it then. */
#include "binding.h"

#include <structmember.h>

PyTypeObject *region_type;

static void release_view(RegionObject *region)
{
    if (!region->held) return;
    region->held = false;
    PyBuffer_Release(&region->view);
}

void region_abandon(Link *link)
{
    RegionObject *region = (RegionObject *)((char *)link - offsetof(RegionObject, link));
    link_remove(link);
    region->registered = false;
    Py_INCREF(region);
    release_view(region);
    Py_DECREF(region);
}

static void dealloc(PyObject *self)
{
    RegionObject *region = (RegionObject *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject *error, *value, *trace;
    PyErr_Fetch(&error, &value, &trace);
    /* Out of the list first: a close of the store by another thread must not find it. */
    if (region->link.next) link_remove(&region->link);
    if (region->registered) {
        region->registered = false;
        Py_BEGIN_ALLOW_THREADS
        hearth_unregister(region->store->handle, region->number);
        Py_END_ALLOW_THREADS
    }
    release_view(region);
    Py_XDECREF(region->store);
    PyErr_Restore(error, value, trace);
    type->tp_free(self);
    Py_DECREF(type);
}

/* The memory to register: a buffer, (address, length), or the two by keyword. */
static int take_memory(RegionObject *region, PyObject **values)
{
    PyObject *buffer = values[0] == Py_None ? NULL : values[0];
    if (buffer && (values[1] || values[2])) {
        PyErr_SetString(PyExc_TypeError, "register: a buffer, or address and length, not both");
        return -1;
    }
    if (buffer && PyTuple_Check(buffer) && PyTuple_GET_SIZE(buffer) == 2) {
        values[1] = PyTuple_GET_ITEM(buffer, 0);
        values[2] = PyTuple_GET_ITEM(buffer, 1);
        buffer = NULL;
    }
    if (buffer) {
        if (PyObject_GetBuffer(buffer, &region->view, PyBUF_WRITABLE) < 0) return -1;
        region->held = true;
        region->address = (uint64_t)(uintptr_t)region->view.buf;
        region->length = (uint64_t)region->view.len;
    } else if (!values[1] || !values[2]) {
        PyErr_SetString(PyExc_TypeError, "register takes a buffer, or address and length");
        return -1;
    } else if (take_uint64(values[1], "address", &region->address) < 0
               || take_uint64(values[2], "length", &region->length) < 0) {
        return -1;
    }
    if (region->address == 0 || region->length == 0) {
        PyErr_SetString(PyExc_ValueError, "register: there is no memory to register");
        return -1;
    }
    return 0;
}

PyObject *store_register(StoreObject *store, PyObject *const *arguments, Py_ssize_t count,
                         PyObject *names)
{
    static const Signature signature = {
        "register", 4, 0, 1, {"buffer", "address", "length", "descriptor"}};
    PyObject *values[4];
    int descriptor = -1;
    if (arguments_take(&signature, arguments, count, names, values, NULL) < 0) return NULL;
    if (!values[0]) values[0] = Py_None;
    if (values[3]) {
        long number = PyLong_AsLong(values[3]);
        if (number == -1 && PyErr_Occurred()) return NULL;
        if (number < -1 || number > INT32_MAX)
            return PyErr_Format(PyExc_ValueError,
                                "descriptor is %R; it is a file descriptor, or -1", values[3]);
        descriptor = (int)number;
    }
    RegionObject *region = (RegionObject *)region_type->tp_alloc(region_type, 0);
    if (!region) return NULL;
    Py_INCREF(store);
    region->store = store;
    link_make(&region->link);
    if (take_memory(region, values) < 0 || store_check(store) < 0) goto failed;
    int32_t error;
    Py_BEGIN_ALLOW_THREADS
    error = hearth_register(store->handle, (void *)(uintptr_t)region->address, region->length,
                            descriptor, &region->number);
    Py_END_ALLOW_THREADS
    if (error < 0) {
        raise_error(error);
        goto failed;
    }
    if (store->state != STORE_OPEN) { /* closed meanwhile, and the region with it */
        store_await_closed(store);
        raise_closed("store");
        goto failed;
    }
    region->registered = true;
    link_add(&store->regions, &region->link);
    return (PyObject *)region;
failed:
    Py_DECREF(region);
    return NULL;
}

static PyObject *unregister(PyObject *self, PyObject *unused)
{
    (void)unused;
    RegionObject *region = (RegionObject *)self;
    if (!region->registered) Py_RETURN_NONE;
    if (region->users > 0)
        return PyErr_Format(PyExc_BufferError,
                            "the region is used by %u batches under way; drain them first",
                            region->users);
    region->registered = false; /* from here on no batch takes it */
    int32_t error;
    Py_BEGIN_ALLOW_THREADS
    error = hearth_unregister(region->store->handle, region->number);
    Py_END_ALLOW_THREADS
    if (error < 0 && region->store->state == STORE_OPEN && error != HEARTH_E_FORKED) {
        region->registered = true;
        return raise_error(error);
    }
    if (region->store->state == STORE_CLOSING) store_await_closed(region->store);
    link_remove(&region->link);
    release_view(region);
    if (error == HEARTH_E_FORKED) return raise_error(error);
    Py_RETURN_NONE;
}

static PyObject *subscript(PyObject *self, PyObject *part)
{
    RegionObject *region = (RegionObject *)self;
    if (!PySlice_Check(part))
        return PyErr_Format(PyExc_TypeError, "a region is sliced: region[offset:offset + length]");
    PySliceObject *slice = (PySliceObject *)part;
    uint64_t start = 0, stop = region->length;
    if (slice->step != Py_None) {
        uint64_t step;
        if (take_uint64(slice->step, "the step of a slice", &step) < 0) return NULL;
        if (step != 1) return PyErr_Format(PyExc_ValueError, "a slice of a region has no step");
    }
    if (slice->start != Py_None && take_uint64(slice->start, "the start of a slice", &start) < 0)
        return NULL;
    if (slice->stop != Py_None && take_uint64(slice->stop, "the stop of a slice", &stop) < 0)
        return NULL;
    /* Not clipped as a list's: a shorter destination would be a wrong one. */
    if (start > stop || stop > region->length)
        return PyErr_Format(PyExc_IndexError, "[%llu:%llu] lies outside the region of %llu bytes",
                            (unsigned long long)start, (unsigned long long)stop,
                            (unsigned long long)region->length);
    return Py_BuildValue("(OKK)", self, (unsigned long long)start,
                         (unsigned long long)(stop - start));
}

static PyMethodDef methods[] = {
    {"unregister", unregister, METH_NOARGS,
     "unregister($self)\n--\n\nForgets the region and lets go of its buffer. Again: nothing."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"number", T_UINT, offsetof(RegionObject, number), READONLY, NULL},
    {"address", T_ULONGLONG, offsetof(RegionObject, address), READONLY, NULL},
    {"length", T_ULONGLONG, offsetof(RegionObject, length), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Registered memory; region[offset:offset + length] is a buffer."},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_mp_subscript, subscript},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "hearth.Region",
    .basicsize = sizeof(RegionObject),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

int region_prepare(PyObject *module)
{
    return (region_type = make_type(module, &spec)) ? 0 : -1;
}
