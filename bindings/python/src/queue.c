/* Queue: batches under way. A batch is in a table, by its number, until it has ended; its
 * operations' tags hold the number. Those that the queue had no room for wait in the backlog, first
 * come first served; those that have ended whole wait, in that order, to be drained. Only waiting
 * is done without the GIL. */
#include "binding.h"

#include <time.h>
#include <unistd.h>

#define POLL_ROOM 128

typedef struct Fifo {
    Batch *first, *last;
} Fifo;

typedef struct QueueObject {
    PyObject_HEAD
    StoreObject *store;
    Link link;
    hearth_queue handle;
    int descriptor;
    int state; /* as a store's */
    pid_t closer;
    Batch **table; /* at number % room: a number whose place is taken is left out */
    uint32_t room, used;
    Fifo backlog, ready;
    uint64_t next_number;
    uint32_t pending;   /* batches not yet drained */
    uint64_t under_way; /* operations submitted and not ended */
} QueueObject;

PyTypeObject *queue_type;

static void fifo_add(Fifo *fifo, Batch *batch)
{
    batch->next = NULL;
    if (fifo->last)
        fifo->last->next = batch;
    else
        fifo->first = batch;
    fifo->last = batch;
}

static void fifo_put_back(Fifo *fifo, Batch *batch)
{
    batch->next = fifo->first;
    fifo->first = batch;
    if (!fifo->last) fifo->last = batch;
}

static Batch *fifo_take(Fifo *fifo)
{
    Batch *batch = fifo->first;
    fifo->first = batch->next;
    if (!fifo->first) fifo->last = NULL;
    return batch;
}

static void fifo_remove(Fifo *fifo, Batch *batch)
{
    Fifo kept = {NULL, NULL};
    while (fifo->first) {
        Batch *next = fifo_take(fifo);
        if (next != batch) fifo_add(&kept, next);
    }
    *fifo = kept;
}

static int queue_check(const QueueObject *queue)
{
    if (store_check(queue->store) < 0) return -1;
    if (queue->state == STORE_OPEN) return 0;
    raise_closed("queue");
    return -1;
}

/* The batch of that number, while it has not ended. */
static Batch *table_find(const QueueObject *queue, uint64_t number)
{
    Batch *batch = queue->room ? queue->table[number & (queue->room - 1)] : NULL;
    return batch && batch->number == number ? batch : NULL;
}

/* Gives the batch its number. The table is at most half full, so that few are left out. */
static int table_add(QueueObject *queue, Batch *batch)
{
    if (queue->used >= queue->room / 2) {
        uint32_t room = queue->room ? queue->room * 2 : 64;
        Batch **table = PyMem_Calloc(room, sizeof *table);
        if (!table) {
            PyErr_NoMemory();
            return -1;
        }
        /* Numbers that differ modulo the old room differ modulo the new one. */
        for (uint32_t place = 0; place < queue->room; place++) {
            Batch *other = queue->table[place];
            if (other) table[other->number & (room - 1)] = other;
        }
        PyMem_Free(queue->table);
        queue->table = table;
        queue->room = room;
    }
    while (queue->table[queue->next_number & (queue->room - 1)]) queue->next_number++;
    batch->number = queue->next_number++ & ((UINT64_C(1) << (63 - INDEX_BITS)) - 1);
    queue->table[batch->number & (queue->room - 1)] = batch;
    queue->used++;
    return 0;
}

static void table_remove(QueueObject *queue, Batch *batch)
{
    queue->table[batch->number & (queue->room - 1)] = NULL;
    queue->used--;
}

static void batch_finish(QueueObject *queue, Batch *batch)
{
    table_remove(queue, batch);
    fifo_add(&queue->ready, batch);
}

/* Submits what it can of a batch: 0, or an error. A full queue is none. */
static int64_t batch_push(QueueObject *queue, Batch *batch)
{
    uint32_t before = batch->submitted;
    int64_t taken = batch_submit(batch, queue->handle);
    queue->under_way += batch->submitted - before;
    if (taken == HEARTH_E_RESOURCE && queue->under_way > 0) return 0;
    return taken < 0 ? taken : 0;
}

static void hand_on(QueueObject *queue)
{
    while (queue->backlog.first) {
        Batch *batch = queue->backlog.first;
        int64_t error = batch_push(queue, batch);
        if (error == 0 && batch->submitted < batch->operation_count) return;
        fifo_take(&queue->backlog);
        if (error == 0) continue;
        batch_cut(batch, HEARTH_FAILED);
        if (batch_ended(batch)) batch_finish(queue, batch);
    }
}

static void complete(QueueObject *queue, const hearth_completion *completions, int64_t count)
{
    for (int64_t index = 0; index < count; index++) {
        uint64_t tag = completions[index].tag;
        Batch *batch = table_find(queue, tag >> INDEX_BITS);
        if (!batch) continue;
        uint32_t before = batch->ended;
        batch_complete(batch, tag & ((1 << INDEX_BITS) - 1), &completions[index]);
        queue->under_way -= batch->ended - before;
        if (batch->ended != before && batch_ended(batch)) batch_finish(queue, batch);
    }
}

/* Takes what has completed, without waiting. 0, or -1 with an error. */
static int collect(QueueObject *queue)
{
    hearth_completion completions[POLL_ROOM];
    int64_t count;
    do {
        count = hearth_poll(queue->handle, completions, POLL_ROOM, 0);
        if (count < 0) {
            raise_error(count);
            return -1;
        }
        complete(queue, completions, count);
        hand_on(queue);
    } while (count == POLL_ROOM);
    return 0;
}

/* Makes the descriptor readable, where it is still the queue's. */
static void make_readable(const QueueObject *queue)
{
    /* A queue that closes has closed its descriptor, whose number may be another file's by now. */
    if (queue->state != STORE_OPEN || queue->store->state != STORE_OPEN) return;
    uint64_t one = 1;
    ssize_t written = write(queue->descriptor, &one, sizeof one);
    (void)written; /* refused only when the count is full, and then it is readable */
}

/* Before a call leaves ended batches behind: the poll that took their completions has cleared the
 * descriptor. */
static void tell_again(const QueueObject *queue)
{
    if (queue->ready.first) make_readable(queue);
}

/* The batches that have ended, as a list. Without memory for all of them the list ends early. */
static PyObject *hand_out(QueueObject *queue)
{
    PyObject *list = PyList_New(0);
    while (list && queue->ready.first) {
        /* Out of the queue first: making objects may collect garbage, which may run any code and
         * let other threads run, and those may drain this queue or close it. */
        Batch *batch = fifo_take(&queue->ready);
        queue->pending--;
        PyObject *item = Py_BuildValue("(KN)", (unsigned long long)batch->number,
                                       batch_results(batch));
        if (item && PyList_Append(list, item) == 0) {
            Py_DECREF(item);
            batch_free(batch); /* may run any code, even close this queue */
            continue;
        }
        Py_XDECREF(item);
        if (queue->state == STORE_CLOSED) {
            batch_free(batch);
        } else {
            fifo_put_back(&queue->ready, batch);
            queue->pending++;
        }
        /* Batches in the list are in no queue any more: they must not be lost with it. */
        if (PyList_GET_SIZE(list) > 0)
            PyErr_Clear();
        else
            Py_CLEAR(list);
        break;
    }
    tell_again(queue);
    return list;
}

/* Nothing of it is under way any more: lets go of the batches. */
static void let_go(QueueObject *queue, bool is_free)
{
    link_remove(&queue->link);
    queue->state = STORE_CLOSED;
    Fifo all = queue->ready;
    queue->ready = queue->backlog = (Fifo){NULL, NULL};
    for (uint32_t place = 0; place < queue->room; place++)
        if (queue->table[place]) fifo_add(&all, queue->table[place]);
    PyMem_Free(queue->table);
    queue->table = NULL;
    queue->room = queue->used = queue->pending = 0;
    while (all.first) {
        Batch *batch = fifo_take(&all);
        if (is_free) batch_free(batch); /* otherwise lost, which beats writing into used memory */
    }
}

void queue_abandon(Link *link)
{
    QueueObject *queue = (QueueObject *)((char *)link - offsetof(QueueObject, link));
    Py_INCREF(queue);
    let_go(queue, true);
    Py_DECREF(queue);
}

/* 0, or an error of the library. Waits. */
static int32_t close_queue(QueueObject *queue)
{
    struct timespec pause = {0, 1000000};
    if (queue->state != STORE_OPEN) {
        /* Not before the other that closes it is through: the memory is free when this returns. */
        while (queue->state == STORE_CLOSING && queue->closer == getpid()) {
            Py_BEGIN_ALLOW_THREADS
            nanosleep(&pause, NULL);
            Py_END_ALLOW_THREADS
        }
        return 0;
    }
    queue->state = STORE_CLOSING;
    queue->closer = getpid();
    int32_t error;
    Py_BEGIN_ALLOW_THREADS
    error = hearth_queue_close(queue->handle);
    Py_END_ALLOW_THREADS
    if (error < 0 && error != HEARTH_E_FORKED && queue->store->state != STORE_OPEN) {
        store_await_closed(queue->store); /* the store closes it */
        error = 0;
    }
    if (queue->state == STORE_CLOSED) return 0;
    let_go(queue, error == 0 || error == HEARTH_E_FORKED);
    return error == HEARTH_E_FORKED ? 0 : error;
}

static void finalize(PyObject *self)
{
    QueueObject *queue = (QueueObject *)self;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (close_queue(queue) < 0) {
        raise_error(HEARTH_E_IO);
        PyErr_WriteUnraisable(self);
    }
    PyErr_Restore(type, value, trace);
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((QueueObject *)self)->store);
    return 0;
}

static void dealloc(PyObject *self)
{
    if (PyObject_CallFinalizerFromDealloc(self) < 0) return;
    QueueObject *queue = (QueueObject *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(queue->store);
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject *store_queue(StoreObject *store, PyObject *const *arguments, Py_ssize_t count,
                      PyObject *names)
{
    static const Signature signature = {"queue", 1, 0, 1, {"capacity"}};
    PyObject *value;
    uint32_t capacity = 4096;
    if (arguments_take(&signature, arguments, count, names, &value, NULL) < 0) return NULL;
    if (value && take_uint32(value, "capacity", &capacity) < 0) return NULL;
    if (capacity < 1 || capacity > 1 << 20)
        return PyErr_Format(PyExc_ValueError, "capacity is %u; it is 1 to 2^20", capacity);
    if (store_check(store) < 0) return NULL;
    QueueObject *queue = (QueueObject *)queue_type->tp_alloc(queue_type, 0);
    if (!queue) return NULL;
    Py_INCREF(store);
    queue->store = store;
    queue->state = STORE_CLOSED; /* until it is open */
    link_make(&queue->link);
    int32_t error;
    Py_BEGIN_ALLOW_THREADS
    error = hearth_queue_open(store->handle, capacity, NULL, NULL, &queue->handle);
    Py_END_ALLOW_THREADS
    if (error == 0) {
        queue->descriptor = hearth_event_fd(queue->handle);
        if (queue->descriptor < 0) {
            error = queue->descriptor;
            raise_error(error);
            hearth_queue_close(queue->handle);
        }
    } else {
        raise_error(error);
    }
    if (error < 0 || store_check(store) < 0) { /* closed meanwhile, and the queue with it */
        Py_DECREF(queue);
        return NULL;
    }
    queue->state = STORE_OPEN;
    link_add(&store->queues, &queue->link);
    return (PyObject *)queue;
}

/* Takes the batch: submits it, or puts it behind those that wait. Its number. */
static PyObject *submit(QueueObject *queue, Batch *batch)
{
    /* Buffers ran code of their own: the queue may have been closed by it. */
    if (queue_check(queue) < 0 || table_add(queue, batch) < 0) goto failed;
    if (!queue->backlog.first) {
        int64_t error = batch_push(queue, batch);
        if (error < 0 && batch->submitted == 0) {
            raise_error(error);
            table_remove(queue, batch);
            goto failed;
        }
    }
    if (batch->submitted < batch->operation_count) fifo_add(&queue->backlog, batch);
    queue->pending++;
    return PyLong_FromUnsignedLongLong(batch->number);
failed:
    batch_free(batch);
    return NULL;
}

static int take_space(QueueObject *queue, PyObject *value, NamespaceObject **space)
{
    if (Py_TYPE(value) != namespace_type) {
        PyErr_Format(PyExc_TypeError, "space is a %s; it is a Namespace",
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    *space = (NamespaceObject *)value;
    if ((*space)->store != queue->store) {
        PyErr_SetString(PyExc_ValueError, "the namespace belongs to another store");
        return -1;
    }
    return queue_check(queue) < 0 ? -1 : namespace_check(*space);
}

static PyObject *submit_kind(QueueObject *queue, hearth_kind kind, const Signature *signature,
                             PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    PyObject *values[3] = {NULL, NULL, NULL};
    NamespaceObject *space;
    How how;
    if (arguments_take(signature, arguments, count, names, values, &how) < 0) return NULL;
    if (how_check(&how, signature->function, kind) < 0) return NULL;
    if (take_space(queue, values[0], &space) < 0) return NULL;
    Sources sources = {.buffers = values[2]};
    Batch *batch =
        batch_make(space, kind, values[1], kind == HEARTH_DELETE ? NULL : &sources, &how);
    return batch ? submit(queue, batch) : NULL;
}

#define SUBMIT(name, kind, ...)                                                             \
    static PyObject *name(QueueObject *queue, PyObject *const *arguments, Py_ssize_t count, \
                          PyObject *names)                                                  \
    {                                                                                       \
        static const Signature signature = __VA_ARGS__;                                     \
        return submit_kind(queue, kind, &signature, arguments, count, names);               \
    }
SUBMIT(submit_get, HEARTH_GET, {"submit_get", 3, 3, 3, {"space", "keys", "buffers"}})
SUBMIT(submit_put, HEARTH_PUT, {"submit_put", 3, 3, 3, {"space", "keys", "buffers"}})
SUBMIT(submit_delete, HEARTH_DELETE, {"submit_delete", 2, 2, 2, {"space", "keys"}})

static PyObject *submit_rows(QueueObject *queue, PyObject *const *arguments, Py_ssize_t count,
                             PyObject *names)
{
    static const Signature signature = {
        "submit_rows", 7, 7, 7,
        {"kind", "space", "keys", "region", "rows", "row_stride", "row_length"}};
    static const char *const kinds[] = {"get", "put", NULL};
    PyObject *values[7];
    NamespaceObject *space;
    How how;
    if (arguments_take(&signature, arguments, count, names, values, &how) < 0) return NULL;
    int kind = take_choice(values[0], "kind", kinds); /* HEARTH_GET is 0, HEARTH_PUT is 1 */
    if (kind < 0 || how_check(&how, "submit_rows", (hearth_kind)kind) < 0) return NULL;
    if (take_space(queue, values[1], &space) < 0) return NULL;
    if (Py_TYPE(values[3]) != region_type)
        return PyErr_Format(PyExc_TypeError, "region is a %s; it is a Region",
                            Py_TYPE(values[3])->tp_name);
    Sources sources = {.region = (RegionObject *)values[3], .rows = values[4]};
    if (take_uint64(values[5], "row_stride", &sources.row_stride) < 0
        || take_uint64(values[6], "row_length", &sources.row_length) < 0)
        return NULL;
    Batch *batch = batch_make(space, (hearth_kind)kind, values[2], &sources, &how);
    return batch ? submit(queue, batch) : NULL;
}

static PyObject *drain(PyObject *self, PyObject *unused)
{
    (void)unused;
    QueueObject *queue = (QueueObject *)self;
    if (queue_check(queue) < 0 || collect(queue) < 0) return NULL;
    return hand_out(queue);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static PyObject *wait_queue(QueueObject *queue, PyObject *const *arguments, Py_ssize_t count,
                            PyObject *names)
{
    static const Signature signature = {"wait", 1, 0, 1, {"timeout"}};
    PyObject *value;
    uint64_t timeout = UINT64_MAX, begun = now_ns();
    if (arguments_take(&signature, arguments, count, names, &value, NULL) < 0) return NULL;
    if (value && value != Py_None && take_seconds(value, "timeout", &timeout) < 0) return NULL;
    hearth_completion completions[POLL_ROOM];
    if (queue_check(queue) < 0 || collect(queue) < 0) return NULL;
    while (!queue->ready.first && queue->pending > 0) {
        uint64_t passed = now_ns() - begun;
        if (passed >= timeout) break;
        uint64_t slice = timeout - passed < SLICE_NS ? timeout - passed : SLICE_NS;
        hearth_queue handle = queue->handle;
        int64_t taken;
        Py_BEGIN_ALLOW_THREADS
        taken = hearth_poll(handle, completions, POLL_ROOM, slice);
        Py_END_ALLOW_THREADS
        if (queue_check(queue) < 0) return NULL; /* closed meanwhile */
        if (taken < 0) return raise_error(taken);
        complete(queue, completions, taken);
        hand_on(queue);
        if (taken == POLL_ROOM && collect(queue) < 0) return NULL;
        if (PyErr_CheckSignals() < 0) {
            tell_again(queue);
            return NULL;
        }
    }
    return hand_out(queue);
}

static PyObject *cancel(QueueObject *queue, PyObject *const *arguments, Py_ssize_t count,
                        PyObject *names)
{
    static const Signature signature = {"cancel", 1, 1, 1, {"batch"}};
    PyObject *value;
    uint64_t number;
    if (arguments_take(&signature, arguments, count, names, &value, NULL) < 0) return NULL;
    if (take_uint64(value, "batch", &number) < 0 || queue_check(queue) < 0) return NULL;
    Batch *batch = table_find(queue, number);
    if (!batch) Py_RETURN_NONE; /* it has ended */
    if (batch->submitted > 0) {
        uint64_t first = number << INDEX_BITS;
        int32_t error = hearth_cancel(queue->handle, first, first + batch->submitted - 1);
        if (error < 0) return raise_error(error);
    }
    if (batch->submitted < batch->operation_count) {
        fifo_remove(&queue->backlog, batch);
        batch_cut(batch, HEARTH_CANCELLED);
        /* Nothing of it was under way: what fills the queue wakes those who wait. */
        if (batch_ended(batch)) batch_finish(queue, batch);
    }
    Py_RETURN_NONE;
}

static PyObject *fileno_(PyObject *self, PyObject *unused)
{
    (void)unused;
    QueueObject *queue = (QueueObject *)self;
    return queue_check(queue) < 0 ? NULL : PyLong_FromLong(queue->descriptor);
}

/* With the GIL held, as it never waits: who waits for the descriptor runs when this thread lets go
 * by itself, and finds all that it has done by then, instead of being let in at each write. */
static PyObject *wake(PyObject *self, PyObject *unused)
{
    (void)unused;
    QueueObject *queue = (QueueObject *)self;
    if (queue_check(queue) < 0) return NULL;
    make_readable(queue);
    Py_RETURN_NONE;
}

static PyObject *close_(PyObject *self, PyObject *unused)
{
    (void)unused;
    int32_t error = close_queue((QueueObject *)self);
    if (error < 0) return raise_error(error);
    Py_RETURN_NONE;
}

static PyObject *pending(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(((QueueObject *)self)->pending);
}

#define KEYWORDS (METH_FASTCALL | METH_KEYWORDS)
#define FUNCTION(name) (PyCFunction)(void (*)(void))(name)

static PyMethodDef methods[] = {
    {"fileno", fileno_, METH_NOARGS,
     "fileno($self)\n--\n\nA descriptor that is readable while finished batches wait."},
    {"wake", wake, METH_NOARGS,
     "wake($self)\n--\n\nMakes the descriptor readable. Lets no other thread run."},
    {"submit_get", FUNCTION(submit_get), KEYWORDS,
     "submit_get($self, space, keys, buffers, **how)\n--\n\nA batch of gets; its number."},
    {"submit_put", FUNCTION(submit_put), KEYWORDS,
     "submit_put($self, space, keys, buffers, **how)\n--\n\nA batch of puts; its number."},
    {"submit_delete", FUNCTION(submit_delete), KEYWORDS,
     "submit_delete($self, space, keys)\n--\n\nA batch of deletes; its number."},
    {"submit_rows", FUNCTION(submit_rows), KEYWORDS,
     "submit_rows($self, kind, space, keys, region, rows, row_stride, row_length, **how)\n--\n\n"
     "A batch whose blocks lie in rows of a region; its number."},
    {"drain", drain, METH_NOARGS,
     "drain($self)\n--\n\nBatches that have ended, with their results. Never waits."},
    {"wait", FUNCTION(wait_queue), KEYWORDS,
     "wait($self, timeout=None)\n--\n\nThe same, waiting for the first one."},
    {"cancel", FUNCTION(cancel), KEYWORDS,
     "cancel($self, batch)\n--\n\nAsks for a batch to be given up; it is drained still."},
    {"close", close_, METH_NOARGS,
     "close($self)\n--\n\nCancels what is under way and waits until its memory is free."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"pending", pending, NULL, "Batches submitted and not yet drained.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Batches under way; Store.queue makes one."},
    {Py_tp_finalize, finalize},
    {Py_tp_dealloc, dealloc},
    {Py_tp_traverse, traverse},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "hearth.Queue",
    .basicsize = sizeof(QueueObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

int queue_prepare(PyObject *module)
{
    return (queue_type = make_type(module, &spec)) ? 0 : -1;
}
