/* Calls that wait: one batch, submitted and polled without the GIL on a queue that this call has to
 * itself. They return when every operation has ended and its memory is free: a read that was given
 * up at its deadline while the device still writes keeps the call until the device is through. */
#include "binding.h"

#include <time.h>

#define QUEUE_CAPACITY 1024

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static int borrow(StoreObject *store, hearth_queue *queue)
{
    if (store->idle_count > 0) {
        *queue = store->idle[--store->idle_count];
        return 0;
    }
    int32_t error;
    Py_BEGIN_ALLOW_THREADS
    error = hearth_queue_open(store->handle, QUEUE_CAPACITY, NULL, NULL, queue);
    Py_END_ALLOW_THREADS
    if (error < 0) {
        raise_error(error);
        return -1;
    }
    return 0;
}

static void give_back(StoreObject *store, hearth_queue queue)
{
    if (store->state == STORE_OPEN && store->idle_count < IDLE_MAX) {
        store->idle[store->idle_count++] = queue;
    } else {
        Py_BEGIN_ALLOW_THREADS
        hearth_queue_close(queue);
        Py_END_ALLOW_THREADS
    }
}

/* Submits and polls until all has ended, or for about a slice. 0 or an error. Without the GIL. */
static int64_t pump(Batch *batch, hearth_queue queue)
{
    hearth_completion completions[64];
    uint64_t end = now_ns() + SLICE_NS;
    while (!batch_ended(batch)) {
        if (batch->submitted < batch->operation_count) {
            int64_t taken = batch_submit(batch, queue);
            bool is_full = taken == HEARTH_E_RESOURCE && batch->submitted > batch->ended;
            if (taken < 0 && !is_full) return taken;
        }
        int64_t count = hearth_poll(queue, completions, 64, SLICE_NS);
        if (count < 0) return count;
        for (int64_t index = 0; index < count; index++)
            batch_complete(batch, (uint32_t)completions[index].tag, &completions[index]);
        if (now_ns() >= end) break;
    }
    return 0;
}

/* After an error in the middle: closes the queue. Whether nothing uses the batch's memory now. */
static bool settle(StoreObject *store, hearth_queue queue)
{
    int32_t error;
    Py_BEGIN_ALLOW_THREADS
    error = hearth_queue_close(queue);
    Py_END_ALLOW_THREADS
    if (error == 0 || error == HEARTH_E_FORKED) return true;
    if (store->state == STORE_OPEN) return false;
    store_await_closed(store);
    return true;
}

/* Runs the batch to its end. 0, or -1 with an error set; *is_free tells whether the batch may be
 * freed (otherwise its memory is lost, which beats writing into what is used anew). */
static int run(Batch *batch, bool *is_free)
{
    StoreObject *store = batch->space->store;
    PyObject *type = NULL, *value = NULL, *trace = NULL;
    hearth_queue queue;
    *is_free = true;
    if (borrow(store, &queue) < 0) return -1;
    bool interrupted = false;
    while (!batch_ended(batch)) {
        int64_t error;
        Py_BEGIN_ALLOW_THREADS
        error = pump(batch, queue);
        Py_END_ALLOW_THREADS
        if (error < 0) {
            /* Of an interrupt and the error of a store closed since, the interrupt is told. */
            if (!interrupted) {
                raise_error(error);
                PyErr_Fetch(&type, &value, &trace);
            }
            *is_free = settle(store, queue);
            PyErr_Restore(type, value, trace);
            return -1;
        }
        if (!batch_ended(batch) && !interrupted && PyErr_CheckSignals() < 0) {
            interrupted = true;
            PyErr_Fetch(&type, &value, &trace);
            batch_cut(batch, HEARTH_CANCELLED);
            hearth_cancel(queue, 0, UINT32_MAX);
        }
    }
    if (!interrupted) {
        give_back(store, queue);
        return 0;
    }
    /* Its cancel may be looked at late: no other operations may have these tags. */
    settle(store, queue);
    PyErr_Restore(type, value, trace);
    return -1;
}

PyObject *transfer_run(Batch *batch)
{
    bool is_free = true;
    PyObject *results = NULL;
    if (batch->count == 0) {
        results = store_check(batch->space->store) < 0 ? NULL : PyList_New(0);
    } else if (run(batch, &is_free) == 0) {
        results = batch_results(batch);
    }
    if (is_free) batch_free(batch);
    return results;
}

int transfer_one(Batch *batch, Outcome *outcome)
{
    bool is_free;
    int done = run(batch, &is_free);
    if (done == 0) *outcome = batch->outcomes[0];
    if (is_free) batch_free(batch);
    return done < 0 ? (is_free ? -1 : -2) : 0;
}
