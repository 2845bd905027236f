/* Store: an open store. close() returns when nothing of it is under way; then its queues, regions
 * and batches let go of what they held. Stores left open are closed at the interpreter's exit. */
#include "binding.h"

#include <structmember.h>
#include <time.h>
#include <unistd.h>

PyTypeObject *store_type;
static Link open_stores = {&open_stores, &open_stores};

static StoreObject *store_of(Link *link)
{
    return (StoreObject *)((char *)link - offsetof(StoreObject, open));
}

int store_check(const StoreObject *store)
{
    if (store->state == STORE_OPEN) return 0;
    raise_closed("store");
    return -1;
}

void store_await_closed(StoreObject *store)
{
    struct timespec pause = {0, 1000000};
    /* In the child of a fork, the thread that closes is not there. */
    pid_t process = store->closer;
    while (store->state == STORE_CLOSING && process == getpid()) {
        Py_BEGIN_ALLOW_THREADS
        nanosleep(&pause, NULL);
        Py_END_ALLOW_THREADS
    }
}

/* 0, or what hearth_close said. */
static int32_t close_store(StoreObject *store)
{
    if (store->state == STORE_CLOSED) return 0;
    if (store->state == STORE_CLOSING) {
        store_await_closed(store);
        return 0;
    }
    store->state = STORE_CLOSING;
    store->closer = getpid();
    store->idle_count = 0; /* they close with it */
    Py_INCREF(store);
    int32_t error;
    Py_BEGIN_ALLOW_THREADS
    error = hearth_close(store->handle);
    Py_END_ALLOW_THREADS
    store->state = STORE_CLOSED;
    link_remove(&store->open);
    while (!link_empty(&store->queues)) queue_abandon(store->queues.next);
    while (!link_empty(&store->regions)) region_abandon(store->regions.next);
    if (store->lanes) {
        PyObject *lanes = store->lanes;
        store->lanes = NULL;
        PyObject *done = PyObject_CallMethod(lanes, "close", NULL);
        if (!done) PyErr_WriteUnraisable(lanes);
        Py_XDECREF(done);
        Py_DECREF(lanes);
    }
    Py_DECREF(store);
    /* The child of a fork never had it open; another may have closed it. */
    bool is_quiet =
        error == HEARTH_E_FORKED || error == HEARTH_E_HANDLE || error == HEARTH_E_CLOSED;
    return is_quiet ? 0 : error;
}

PyObject *store_close_all(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    while (!link_empty(&open_stores)) {
        StoreObject *store = store_of(open_stores.next);
        Py_INCREF(store);
        close_store(store);
        link_remove(&store->open);
        Py_DECREF(store);
    }
    Py_RETURN_NONE;
}

static void finalize(PyObject *self)
{
    StoreObject *store = (StoreObject *)self;
    if (store->state != STORE_OPEN) return;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (PyErr_WarnEx(PyExc_ResourceWarning, "a hearth.Store was not closed", 1) < 0)
        PyErr_WriteUnraisable(self);
    if (close_store(store) < 0) {
        raise_error(HEARTH_E_IO);
        PyErr_WriteUnraisable(self);
    }
    PyErr_Restore(type, value, trace);
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((StoreObject *)self)->lanes);
    return 0;
}

static int clear(PyObject *self)
{
    Py_CLEAR(((StoreObject *)self)->lanes);
    return 0;
}

static void dealloc(PyObject *self)
{
    if (PyObject_CallFinalizerFromDealloc(self) < 0) return;
    StoreObject *store = (StoreObject *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (store->weak) PyObject_ClearWeakRefs(self);
    Py_CLEAR(store->lanes);
    link_remove(&store->open);
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject *store_open(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count != 2 || !PyUnicode_Check(arguments[0]) || !PyTuple_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "_open(endpoint, options): a str and a tuple of str");
        return NULL;
    }
    /* Names of files are what the file system made of them. */
    PyObject *endpoint = PyUnicode_EncodeFSDefault(arguments[0]);
    if (!endpoint) return NULL;
    Py_ssize_t number = PyTuple_GET_SIZE(arguments[1]);
    const char **options = PyMem_Calloc((size_t)number + 1, sizeof *options);
    StoreObject *store = NULL;
    if (!options) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t index = 0; index < number; index++)
        if (!(options[index] = PyUnicode_AsUTF8(PyTuple_GET_ITEM(arguments[1], index)))) goto done;
    store = (StoreObject *)store_type->tp_alloc(store_type, 0);
    if (!store) goto done;
    store->state = STORE_CLOSED; /* until it is open, there is nothing to close */
    link_make(&store->open);
    link_make(&store->queues);
    link_make(&store->regions);
    const char *text = PyBytes_AS_STRING(endpoint);
    int32_t error;
    Py_BEGIN_ALLOW_THREADS
    error = hearth_open(text, options, &store->handle);
    Py_END_ALLOW_THREADS
    if (error < 0) {
        raise_error(error);
        Py_CLEAR(store);
        goto done;
    }
    store->state = STORE_OPEN;
    link_add(&open_stores, &store->open);
done:
    PyMem_Free(options);
    Py_DECREF(endpoint);
    return (PyObject *)store;
}

static PyObject *enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return store_check((StoreObject *)self) < 0 ? NULL : new_reference(self);
}

static PyObject *store_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    int32_t error = close_store((StoreObject *)self);
    if (error < 0) return raise_error(error);
    Py_RETURN_NONE;
}

static PyObject *leave(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    (void)arguments, (void)count;
    return store_close(self, NULL);
}

static PyObject *closed(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((StoreObject *)self)->state != STORE_OPEN);
}

/* A call of the library that waits and has nothing but the store for an argument. */
static PyObject *wait_for(StoreObject *store, int32_t (*call)(hearth_store))
{
    if (store_check(store) < 0) return NULL;
    int32_t error;
    Py_BEGIN_ALLOW_THREADS
    error = call(store->handle);
    Py_END_ALLOW_THREADS
    if (error < 0) return raise_error(error);
    Py_RETURN_NONE;
}

static PyObject *wait_recovered(PyObject *self, PyObject *unused)
{
    (void)unused;
    return wait_for((StoreObject *)self, hearth_wait_recovered);
}

static PyObject *checkpoint(PyObject *self, PyObject *unused)
{
    (void)unused;
    return wait_for((StoreObject *)self, hearth_checkpoint);
}

static PyObject *flush(StoreObject *store, PyObject *const *arguments, Py_ssize_t count,
                       PyObject *names)
{
    static const Signature signature = {"flush", 1, 0, 1, {"through"}};
    PyObject *value;
    uint64_t through = UINT64_MAX;
    if (arguments_take(&signature, arguments, count, names, &value, NULL) < 0) return NULL;
    if (value && value != Py_None && take_uint64(value, "through", &through) < 0) return NULL;
    if (store_check(store) < 0) return NULL;
    int32_t error;
    Py_BEGIN_ALLOW_THREADS
    error = hearth_flush(store->handle, through);
    Py_END_ALLOW_THREADS
    if (error < 0) return raise_error(error);
    Py_RETURN_NONE;
}

static PyObject *durable_version(PyObject *self, void *unused)
{
    (void)unused;
    StoreObject *store = (StoreObject *)self;
    uint64_t version;
    if (store_check(store) < 0) return NULL;
    int32_t error;
    Py_BEGIN_ALLOW_THREADS /* the store's own thread is asked */
    error = hearth_durable_version(store->handle, &version);
    Py_END_ALLOW_THREADS
    if (error < 0) return raise_error(error);
    return PyLong_FromUnsignedLongLong(version);
}

static PyObject *statistics_text(PyObject *self, PyObject *format)
{
    StoreObject *store = (StoreObject *)self;
    uint32_t number;
    if (take_uint32(format, "format", &number) < 0 || store_check(store) < 0) return NULL;
    uint64_t room = 64 << 10;
    for (;;) {
        char *text = PyMem_RawMalloc(room);
        if (!text) return PyErr_NoMemory();
        int64_t bytes;
        Py_BEGIN_ALLOW_THREADS
        bytes = hearth_statistics(store->handle, number, text, room);
        Py_END_ALLOW_THREADS
        if (bytes >= 0 && (uint64_t)bytes > room) { /* it grew */
            PyMem_RawFree(text);
            room = (uint64_t)bytes + 4096;
            continue;
        }
        PyObject *result = bytes < 0 ? raise_error(bytes)
            : PyUnicode_DecodeUTF8(text, bytes > 0 ? (Py_ssize_t)bytes - 1 : 0, "replace");
        PyMem_RawFree(text);
        return result;
    }
}

static PyObject *computed(StoreObject *store, PyObject *const *arguments, Py_ssize_t count,
                          PyObject *names)
{
    static const Signature signature = {"computed", 2, 2, 2, {"tokens", "seconds"}};
    PyObject *values[2];
    uint64_t tokens, nanoseconds;
    if (arguments_take(&signature, arguments, count, names, values, NULL) < 0) return NULL;
    if (take_uint64(values[0], "tokens", &tokens) < 0
        || take_seconds(values[1], "seconds", &nanoseconds) < 0 || store_check(store) < 0)
        return NULL;
    int32_t error = hearth_computed(store->handle, tokens, nanoseconds);
    if (error < 0) return raise_error(error);
    Py_RETURN_NONE;
}

#define KEYWORDS (METH_FASTCALL | METH_KEYWORDS)
#define FUNCTION(name) (PyCFunction)(void (*)(void))(name)

static PyMethodDef methods[] = {
    {"__enter__", enter, METH_NOARGS, "__enter__($self)\n--\n\n"},
    {"__exit__", FUNCTION(leave), METH_FASTCALL, "__exit__($self, *exception)\n--\n\n"},
    {"close", store_close, METH_NOARGS,
     "close($self)\n--\n\nEnds what is under way, flushes and closes; waits. Again: nothing."},
    {"wait_recovered", wait_recovered, METH_NOARGS,
     "wait_recovered($self)\n--\n\nWaits until the index is complete."},
    {"checkpoint", checkpoint, METH_NOARGS,
     "checkpoint($self)\n--\n\nWrites a checkpoint now; waits."},
    {"flush", FUNCTION(flush), KEYWORDS,
     "flush($self, through=None)\n--\n\nMakes durable what was put, up to that version."},
    {"_statistics", statistics_text, METH_O, "_statistics($self, format, /)\n--\n\n"},
    {"namespace", FUNCTION(store_namespace), KEYWORDS,
     "namespace($self, fields, *, layout='packed', ttl_seconds=0, cap_bytes=0)\n--\n\n"
     "The namespace with exactly these fields, made if there is none."},
    {"register", FUNCTION(store_register), KEYWORDS,
     "register($self, buffer=None, *, address=0, length=0, descriptor=-1)\n--\n\n"
     "Registers memory for I/O without copies."},
    {"queue", FUNCTION(store_queue), KEYWORDS,
     "queue($self, capacity=4096)\n--\n\nA queue for an engine with a loop of its own."},
    {"computed", FUNCTION(computed), KEYWORDS,
     "computed($self, tokens, seconds)\n--\n\n"
     "Tells that so many tokens were prefilled in so long; for `prefix_worth` without a rate."},
    {"hint", FUNCTION(store_hint), KEYWORDS,
     "hint($self, kind, *, space=None, keys=(), request=0, session=0, when_ns=0, state='open', "
     "step=0, layer=0, first=0, number=0, confidence=0.0)\n--\n\n"
     "Tells what will be needed; never waits. How many hints were taken."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"closed", closed, NULL, NULL, NULL},
    {"durable_version", durable_version, NULL,
     "Every put acknowledged with a version up to this one is durable.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"_lanes", T_OBJECT, offsetof(StoreObject, lanes), 0, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(StoreObject, weak), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "An open store; hearth.open makes one."},
    {Py_tp_finalize, finalize},
    {Py_tp_dealloc, dealloc},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_tp_members, members},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "hearth.Store",
    .basicsize = sizeof(StoreObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

int store_prepare(PyObject *module)
{
    return (store_type = make_type(module, &spec)) ? 0 : -1;
}
