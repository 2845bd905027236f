/* What the files of the extension share: its objects, a batch, and how arguments are taken.
 *
 * Invariants. Python objects are touched with the GIL held; it is the only lock here. What may wait
 * gives it up, and looks at the object's state anew when it has it back. A batch's memory (the
 * Py_buffers, the regions) is let go only when every operation of it has ended, and, where the
 * device still wrote at the end, been released.
 */
#ifndef HEARTH_PYTHON_BINDING_H
#define HEARTH_PYTHON_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <hearth.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Of a wait without the GIL, until signals are looked at: Ctrl-C is answered within it. */
#define SLICE_NS UINT64_C(50000000)
#define KEY_BYTES_MAX 512

typedef struct Link {
    struct Link *previous, *next;
} Link;

enum { STORE_OPEN, STORE_CLOSING, STORE_CLOSED };

#define IDLE_MAX 16

typedef struct StoreObject {
    PyObject_HEAD
    hearth_store handle;
    int state;
    pid_t closer;  /* process of the thread that closes it */
    Link open;    /* in the list of open stores, for the interpreter's exit */
    Link queues;  /* of its Queue objects */
    Link regions; /* of its Region objects */
    hearth_queue idle[IDLE_MAX]; /* queues of calls that wait, each used by one call at a time */
    int idle_count;
    PyObject *lanes; /* asyncio's queues, one a loop: hearth._aio */
    PyObject *weak;
} StoreObject;

typedef struct RegionObject {
    PyObject_HEAD
    StoreObject *store;
    Link link;
    bool registered;
    bool held; /* `view` is */
    Py_buffer view;
    uint32_t users; /* batches under way with a piece of it */
    hearth_region number;
    uint64_t address, length;
} RegionObject;

typedef struct NamespaceObject {
    PyObject_HEAD
    StoreObject *store;
    hearth_namespace handle;
    bool closed;
} NamespaceObject;

extern PyTypeObject *store_type, *region_type, *namespace_type, *queue_type;
extern PyObject *result_type, *entry_type;

/* --- Arguments (arguments.c) --- */

/* How a batch is to be done: what Namespace.get and put take beside keys and buffers. */
typedef struct How {
    uint32_t given; /* bits of the names given */
    uint8_t mode, durability, flags;
    uint32_t time_to_live_s, first_shard, shard_count;
    uint64_t byte_offset, byte_length, timeout_ns;
    PyObject *parents, *shard_lengths; /* borrowed */
} How;

/* The arguments of one call: `names` by position or keyword, the first `required` of them must be
 * there; what is not named there goes to `how` where there is one. Borrowed references. */
typedef struct Signature {
    const char *function;
    int count, required, positional;
    const char *names[12];
} Signature;

int arguments_take(const Signature *signature, PyObject *const *arguments, Py_ssize_t count,
                   PyObject *names, PyObject **values, How *how);
/* Whether what was given goes with this kind of operation. */
int how_check(const How *how, const char *function, hearth_kind kind);
int take_uint64(PyObject *value, const char *what, uint64_t *number);
int take_uint32(PyObject *value, const char *what, uint32_t *number);
/* Seconds to nanoseconds; 0 s is 1 ns, since 0 ns means no bound. */
int take_seconds(PyObject *value, const char *what, uint64_t *nanoseconds);
int take_choice(PyObject *value, const char *what, const char *const *choices);
int take_key(PyObject *value, const char *what, Py_ssize_t index);
/* The items as a tuple, so that code that runs meanwhile cannot change them. */
PyObject *take_items(PyObject *value, const char *what);

/* Keys one after the other, and where each lies. */
typedef struct KeyList {
    uint8_t *data;
    uint64_t data_bytes;
    hearth_span *spans;
    uint32_t count;
} KeyList;

int keys_take(PyObject *keys, KeyList *list);
void keys_free(KeyList *list);

/* --- Errors and results (outcome.c) --- */

int outcome_initialize(PyObject *types);
PyObject *raise_error(int64_t code);
PyObject *raise_closed(const char *what);

/* What is known of an operation: it has ended when both are, in whichever order they came:
 * how it came out, and that its memory is free. */
enum { OUTCOME_ANSWERED = 1, OUTCOME_RELEASED = 2, OUTCOME_ENDED = 3 };

/* What is kept of a completion. */
typedef struct Outcome {
    uint8_t status, reason, tier;
    uint8_t known; /* OUTCOME_ bits */
    int32_t system_error;
    uint64_t version, length, delivered, retry_ns;
} Outcome;

/* Of an operation that came out as neither answer of a call with one answer. */
PyObject *raise_status(const Outcome *outcome, const char *function);
PyObject *outcome_result(const Outcome *outcome);

/* --- Batches (batch.c) --- */

/* A batch has at most 2^INDEX_BITS operations, and a queue 2^39 batches before a tag comes again:
 * what is cancelled late, when it has ended, must not hit another. */
#define INDEX_BITS 24

typedef struct Views Views;
typedef struct Batch {
    uint32_t count;           /* operations, each with a result */
    uint32_t operation_count; /* those to submit: `count`; fewer after a cancel; 1 if it is empty */
    uint32_t submitted, ended;
    uint64_t number; /* in its queue; an operation's tag is number << INDEX_BITS | index */
    hearth_operation *operations;
    uint8_t *data;
    uint64_t data_bytes, data_room;
    uint64_t *bases; /* of each run of RUN operations, where its data begins */
    Outcome *outcomes;
    Views *views;
    RegionObject **regions;
    uint32_t region_count, region_room;
    NamespaceObject *space;
    struct Batch *next;
} Batch;

/* Where the buffers of a batch come from. */
typedef struct Sources {
    PyObject *buffers; /* a sequence, or NULL: */
    RegionObject *region;
    PyObject *rows;
    uint64_t row_stride, row_length;
} Sources;

Batch *batch_make(NamespaceObject *space, hearth_kind kind, PyObject *keys, const Sources *sources,
                  const How *how);
void batch_free(Batch *batch);
/* Submits from where it stopped. Operations taken, fewer than are left when the queue is full, or
 * an error. Needs no GIL. */
int64_t batch_submit(Batch *batch, hearth_queue queue);
/* Takes one completion into operation `index`. Needs no GIL. */
void batch_complete(Batch *batch, uint32_t index, const hearth_completion *completion);
/* Gives up what was not submitted. */
void batch_cut(Batch *batch, hearth_status status);
PyObject *batch_results(const Batch *batch);
static inline bool batch_ended(const Batch *batch)
{
    return batch->ended == batch->operation_count;
}

/* --- Pieces (pieces.c) --- */

struct Views {
    Views *next;
    int count;
    Py_buffer views[32];
};

/* Appends the pieces of one buffer to the batch's data; the number of them, or -1. */
int64_t pieces_take(Batch *batch, PyObject *buffer, bool writable, Py_ssize_t index);
int64_t piece_add(Batch *batch, hearth_region region, uint64_t offset, uint64_t length);
int region_use(Batch *batch, RegionObject *region);
/* Room for `bytes` more of data, aligned; NULL without memory. */
void *batch_reserve(Batch *batch, uint64_t bytes, uint64_t alignment);
/* Rows of any integer array or sequence, as int64_t[count]; to be freed with PyMem_Free. */
int64_t *rows_take(PyObject *rows, uint32_t count);

/* --- Keys of LMCache (lmcache.c) --- */

/* (model, world size, Hearth keys) of keys as text that are all of one; None otherwise. */
PyObject *lmcache_keys(PyObject *module, PyObject *keys);

/* --- Objects --- */

int store_prepare(PyObject *module);
int region_prepare(PyObject *module);
int namespace_prepare(PyObject *module);
int queue_prepare(PyObject *module);
PyObject *store_open(PyObject *module, PyObject *const *arguments, Py_ssize_t count);
PyObject *store_close_all(PyObject *module, PyObject *unused);
/* 0, or -1 with ClosedError set. */
int store_check(const StoreObject *store);
/* Waits, without the GIL, until a close by another thread is through. */
void store_await_closed(StoreObject *store);
PyObject *store_hint(StoreObject *store, PyObject *const *arguments, Py_ssize_t count,
                     PyObject *names);
PyObject *store_namespace(StoreObject *store, PyObject *const *arguments, Py_ssize_t count,
                          PyObject *names);
PyObject *store_register(StoreObject *store, PyObject *const *arguments, Py_ssize_t count,
                         PyObject *names);
PyObject *store_queue(StoreObject *store, PyObject *const *arguments, Py_ssize_t count,
                      PyObject *names);
int namespace_check(const NamespaceObject *space);
/* The store is closed, and no operation is under way: lets go of what they held. */
void queue_abandon(Link *link);
void region_abandon(Link *link);
/* Runs a batch and waits for all of it; takes the batch. A list of Results. */
PyObject *transfer_run(Batch *batch);
/* The same, and nothing but the outcome of its one operation. */
int transfer_one(Batch *batch, Outcome *outcome);

PyTypeObject *make_type(PyObject *module, PyType_Spec *spec);

static inline void link_make(Link *link) { link->previous = link->next = link; }
static inline bool link_empty(const Link *link) { return link->next == link; }
static inline void link_add(Link *list, Link *link)
{
    link->previous = list->previous;
    link->next = list;
    list->previous->next = link;
    list->previous = link;
}
static inline void link_remove(Link *link)
{
    link->previous->next = link->next;
    link->next->previous = link->previous;
    link_make(link);
}
static inline PyObject *new_reference(PyObject *object)
{
    Py_INCREF(object);
    return object;
}

#endif
