/* A batch: operations packed as hearth_submit takes them, what they hold on to, and how each came
 * out. Its data is laid out so that each run of RUN operations can go down by itself: hearth_submit
 * copies the data given with a call, and a batch larger than its queue goes down in many calls. */
#include "binding.h"

#include <string.h>

#define RUN 1024

static uint64_t *base_of(const Batch *batch, uint32_t operation)
{
    return &batch->bases[operation / RUN];
}

/* Where data of the current run lies, as operations give it. */
static int offset_of(const Batch *batch, uint32_t operation, const void *place, uint32_t *offset)
{
    uint64_t far = (uint64_t)((const uint8_t *)place - batch->data) - *base_of(batch, operation);
    if (far > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "the batch is too large");
        return -1;
    }
    *offset = (uint32_t)far;
    return 0;
}

static int span_add(Batch *batch, uint32_t operation, PyObject *key, hearth_span *span)
{
    uint32_t length = (uint32_t)PyBytes_GET_SIZE(key);
    void *place = batch_reserve(batch, length, 1);
    if (!place) return -1;
    memcpy(place, PyBytes_AS_STRING(key), length);
    span->length = length;
    return offset_of(batch, operation, place, &span->offset);
}

static int pieces_add(Batch *batch, uint32_t operation, hearth_kind kind, const Sources *sources,
                      PyObject *buffers, const int64_t *rows)
{
    hearth_operation *made = &batch->operations[operation];
    void *place = batch_reserve(batch, 0, 8);
    int64_t count;
    if (!place || offset_of(batch, operation, place, &made->pieces) < 0) return -1;
    if (buffers) {
        PyObject *buffer = PyTuple_GET_ITEM(buffers, operation);
        count = pieces_take(batch, buffer, kind == HEARTH_GET, operation);
        if (count < 0) return -1;
    } else {
        /* Checked without overflow: row * stride + length <= region's length. */
        uint64_t length = sources->region->length;
        uint64_t room = sources->row_length <= length ? length - sources->row_length : 0;
        if (rows[operation] < 0 || sources->row_length > length
            || (sources->row_stride && (uint64_t)rows[operation] > room / sources->row_stride)) {
            PyErr_Format(PyExc_ValueError, "rows[%u] is %lld, which lies outside the region",
                         operation, (long long)rows[operation]);
            return -1;
        }
        count = piece_add(batch, sources->region->number,
                          (uint64_t)rows[operation] * sources->row_stride, sources->row_length);
        if (count < 0) return -1;
    }
    made->piece_count = (uint32_t)count;
    return 0;
}

/* The shard lengths of the call, once a run. */
static int shards_add(Batch *batch, uint32_t operation, PyObject *lengths, uint32_t *offset)
{
    Py_ssize_t count = PyTuple_GET_SIZE(lengths);
    uint32_t *place = batch_reserve(batch, (uint64_t)count * sizeof *place, 4);
    if (!place) return -1;
    if (offset_of(batch, operation, place, offset) < 0) return -1;
    uint64_t start = (uint64_t)((uint8_t *)place - batch->data);
    for (Py_ssize_t index = 0; index < count; index++) {
        uint32_t length;
        if (take_uint32(PyTuple_GET_ITEM(lengths, index), "a shard length", &length) < 0)
            return -1;
        memcpy(batch->data + start + (size_t)index * 4, &length, 4);
    }
    return 0;
}

/* What all operations of the call share. */
static void how_apply(hearth_operation *operation, hearth_kind kind, const How *how)
{
    operation->kind = (uint8_t)kind;
    operation->timeout_ns = how->timeout_ns;
    if (kind == HEARTH_GET) {
        operation->mode = how->mode;
        operation->first_shard = how->first_shard;
        operation->shard_count = how->shard_count;
        operation->byte_offset = how->byte_offset;
        operation->byte_length = how->byte_length;
    } else if (kind == HEARTH_PUT) {
        operation->durability = how->durability;
        operation->flags = how->flags;
        operation->time_to_live_s = how->time_to_live_s;
    }
}

typedef struct Items {
    PyObject *keys, *buffers, *parents, *shards;
    int64_t *rows;
} Items;

static int items_take(Items *items, PyObject *keys, const Sources *sources, const How *how)
{
    if (!(items->keys = take_items(keys, "keys"))) return -1;
    Py_ssize_t count = PyTuple_GET_SIZE(items->keys);
    if (count > 1 << INDEX_BITS) {
        PyErr_Format(PyExc_ValueError, "keys: at most 2^%d go in one call", INDEX_BITS);
        return -1;
    }
    if (sources && sources->buffers) {
        if (!(items->buffers = take_items(sources->buffers, "buffers"))) return -1;
        if (PyTuple_GET_SIZE(items->buffers) != count) {
            PyErr_Format(PyExc_ValueError, "%zd keys, but %zd buffers", count,
                         PyTuple_GET_SIZE(items->buffers));
            return -1;
        }
    } else if (sources && !(items->rows = rows_take(sources->rows, (uint32_t)count))) {
        return -1;
    }
    if (how->parents) {
        if (!(items->parents = take_items(how->parents, "parents"))) return -1;
        if (PyTuple_GET_SIZE(items->parents) != count) {
            PyErr_Format(PyExc_ValueError, "%zd keys, but %zd parents", count,
                         PyTuple_GET_SIZE(items->parents));
            return -1;
        }
    }
    if (how->shard_lengths) {
        if (!(items->shards = take_items(how->shard_lengths, "shard_lengths"))) return -1;
        if (PyTuple_GET_SIZE(items->shards) < 1 || PyTuple_GET_SIZE(items->shards) > 4096) {
            PyErr_Format(PyExc_ValueError, "shard_lengths has %zd; a block has 1 to 4096 shards",
                         PyTuple_GET_SIZE(items->shards));
            return -1;
        }
    }
    return 0;
}

static void items_free(Items *items)
{
    Py_XDECREF(items->keys);
    Py_XDECREF(items->buffers);
    Py_XDECREF(items->parents);
    Py_XDECREF(items->shards);
    PyMem_Free(items->rows);
}

static int fill(Batch *batch, hearth_kind kind, const Items *items, const Sources *sources,
                const How *how)
{
    uint32_t shards = 0;
    for (uint32_t index = 0; index < batch->count; index++) {
        hearth_operation *operation = &batch->operations[index];
        if (index % RUN == 0) {
            if (!batch_reserve(batch, 0, 8)) return -1;
            *base_of(batch, index) = batch->data_bytes;
            if (items->shards && shards_add(batch, index, items->shards, &shards) < 0) return -1;
        }
        operation->space = batch->space->handle;
        how_apply(operation, kind, how);
        PyObject *key = PyTuple_GET_ITEM(items->keys, index);
        if (take_key(key, "keys", index) < 0 || span_add(batch, index, key, &operation->key) < 0)
            return -1;
        PyObject *parent = items->parents ? PyTuple_GET_ITEM(items->parents, index) : Py_None;
        if (parent != Py_None
            && (take_key(parent, "parents", index) < 0
                || span_add(batch, index, parent, &operation->parent) < 0))
            return -1;
        if (items->shards) {
            operation->shard_lengths = shards;
            operation->shard_count = (uint32_t)PyTuple_GET_SIZE(items->shards);
        }
        if (sources && pieces_add(batch, index, kind, sources, items->buffers, items->rows) < 0)
            return -1;
    }
    return 0;
}

/* An empty batch ends by the queue like any other, so that its end wakes whoever waits: it asks
 * whether one key is there, and has no results. */
static int fill_empty(Batch *batch)
{
    uint8_t *key = batch_reserve(batch, 1, 1);
    if (!key) return -1;
    *key = 0;
    batch->operations[0].space = batch->space->handle;
    batch->operations[0].kind = HEARTH_CONTAINS;
    batch->operations[0].key = (hearth_span){0, 1};
    return 0;
}

Batch *batch_make(NamespaceObject *space, hearth_kind kind, PyObject *keys, const Sources *sources,
                  const How *how)
{
    Items items = {0};
    Batch *batch = NULL;
    if (items_take(&items, keys, sources, how) < 0) goto failed;
    uint32_t count = (uint32_t)PyTuple_GET_SIZE(items.keys);
    uint32_t operations = count ? count : 1;
    batch = PyMem_Calloc(1, sizeof *batch);
    if (!batch) goto no_memory;
    Py_INCREF(space);
    batch->space = space;
    batch->count = count;
    batch->operation_count = operations;
    batch->operations = PyMem_Calloc(operations, sizeof *batch->operations);
    batch->outcomes = PyMem_Calloc(operations, sizeof *batch->outcomes);
    batch->bases = PyMem_Calloc(operations / RUN + 1, sizeof *batch->bases);
    if (!batch->operations || !batch->outcomes || !batch->bases) goto no_memory;
    /* Most keys are hashes and most blocks one piece: one allocation for all. */
    batch->data_room = (uint64_t)operations * 80 + 64;
    if (!(batch->data = PyMem_Malloc(batch->data_room))) goto no_memory;
    if (sources && !sources->buffers && region_use(batch, sources->region) < 0) goto failed;
    if ((count ? fill(batch, kind, &items, sources, how) : fill_empty(batch)) < 0) goto failed;
    /* Buffers run code of their own: the namespace may have been closed by it. */
    if (namespace_check(space) < 0) goto failed;
    items_free(&items);
    return batch;
no_memory:
    PyErr_NoMemory();
failed:
    items_free(&items);
    if (batch) batch_free(batch);
    return NULL;
}

void batch_free(Batch *batch)
{
    /* Letting go of a buffer may run any code: the batch is out of every list by now. */
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    while (batch->views) {
        Views *views = batch->views;
        batch->views = views->next;
        for (int index = 0; index < views->count; index++) PyBuffer_Release(&views->views[index]);
        PyMem_Free(views);
    }
    for (uint32_t index = 0; index < batch->region_count; index++) {
        batch->regions[index]->users--;
        Py_DECREF(batch->regions[index]);
    }
    Py_XDECREF(batch->space);
    PyMem_Free(batch->regions);
    PyMem_Free(batch->operations);
    PyMem_Free(batch->outcomes);
    PyMem_Free(batch->bases);
    PyMem_Free(batch->data);
    PyMem_Free(batch);
    PyErr_Restore(type, value, trace);
}

int64_t batch_submit(Batch *batch, hearth_queue queue)
{
    int64_t all = 0;
    while (batch->submitted < batch->operation_count) {
        uint32_t first = batch->submitted, run = first / RUN, end = (run + 1) * RUN;
        if (end > batch->operation_count) end = batch->operation_count;
        for (uint32_t index = first; index < end; index++)
            batch->operations[index].tag = batch->number << INDEX_BITS | index;
        /* The data of a run ends where the next one's begins. */
        uint64_t base = batch->bases[run];
        uint64_t stop = (run + 1) * RUN < batch->count ? batch->bases[run + 1] : batch->data_bytes;
        int64_t taken = hearth_submit(queue, batch->operations + first, end - first,
                                      batch->data + base, stop - base);
        /* A full queue is no error: what is left goes down later. */
        if (taken < 0) return taken == HEARTH_E_RESOURCE && all ? all : taken;
        batch->submitted += (uint32_t)taken;
        all += taken;
        if (batch->submitted < end) break;
    }
    return all;
}

void batch_complete(Batch *batch, uint32_t index, const hearth_completion *completion)
{
    if (index >= batch->submitted || batch->outcomes[index].known == OUTCOME_ENDED) return;
    Outcome *outcome = &batch->outcomes[index];
    /* Of two threads that poll one queue, the one with the release may come here first. */
    if (completion->flags & HEARTH_RELEASE) {
        outcome->known |= OUTCOME_RELEASED;
    } else {
        outcome->known |= OUTCOME_ANSWERED;
        outcome->status = completion->status;
        outcome->reason = completion->reason;
        outcome->tier = completion->tier;
        outcome->system_error = completion->system_error;
        outcome->version = completion->version;
        outcome->length = completion->length;
        outcome->delivered = completion->delivered;
        outcome->retry_ns = completion->retry_ns;
        /* Otherwise not the end yet: the device may write still, and the memory must stay. */
        if (!(completion->flags & HEARTH_MEMORY_IN_USE)) outcome->known |= OUTCOME_RELEASED;
    }
    if (outcome->known == OUTCOME_ENDED) batch->ended++;
}

void batch_cut(Batch *batch, hearth_status status)
{
    for (uint32_t index = batch->submitted; index < batch->operation_count; index++)
        batch->outcomes[index].status = (uint8_t)status;
    batch->operation_count = batch->submitted;
}

PyObject *batch_results(const Batch *batch)
{
    PyObject *list = PyList_New(batch->count);
    if (!list) return NULL;
    for (uint32_t index = 0; index < batch->count; index++) {
        PyObject *result = outcome_result(&batch->outcomes[index]);
        if (!result) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, index, result);
    }
    return list;
}
