/* hearth.h: the C interface of Hearth, the NVMe tier for LLM KV caches.
 *
 * A store is opened by endpoint. Keys live in namespaces. Blocks move through queues: a batch of
 * operations goes in, completions come out by polling, by an event descriptor or by a callback.
 * What is known from memory (contains, longest prefix) is answered at once, on the calling thread.
 *
 * Operations are messages. Keys, parents, pieces and shard lengths lie in one block of data that
 * goes with the batch and is copied before hearth_submit returns; nothing in a message is a
 * pointer. The one exception is a piece of region 0, whose offset is an address in this process:
 * memory outside any registered region. It works, at any alignment, at the price of a copy where
 * it is not aligned to 4096; registered regions never cost one when aligned.
 *
 * Handles are numbers, not pointers. A handle that was never given, was closed, or is of another
 * kind is HEARTH_E_HANDLE, never undefined behaviour.
 *
 * Threads. Every function may be called from any thread at any time unless it says otherwise.
 * Functions that wait say so. Completions of one queue may be polled by several threads; each is
 * given out once. A callback runs on the store's own thread: it must not wait, and may call only
 * hearth_submit, hearth_hint, hearth_contains, hearth_prefix, hearth_prefix_worth, hearth_computed,
 * hearth_promoted and hearth_lease_end.
 *
 * Fork. A store does not live on in the child of a fork: every call there is HEARTH_E_FORKED. Open
 * the store in the process that uses it ("spawn" in Python).
 *
 * Return values. Functions return 0 or a count on success and a negative HEARTH_E_* otherwise;
 * hearth_error_message then tells, for this thread, what was wrong and what to do.
 *
 * Versions. Structures only grow in their reserved fields, which must be zero; symbols carry
 * version HEARTH_1. HEARTH_VERSION_* is the header's version, hearth_version the library's.
 */
#ifndef HEARTH_H
#define HEARTH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HEARTH_VERSION_MAJOR 1
#define HEARTH_VERSION_MINOR 0

/* Handles. 0 is never one. */
typedef uint64_t hearth_store;
typedef uint64_t hearth_namespace;
typedef uint64_t hearth_queue;
/* A region's number within its store; 0 is this process's memory by address. */
typedef uint32_t hearth_region;

/* Errors of calls. Outcomes of single operations are hearth_status. */
enum {
    HEARTH_E_HANDLE = -1,   /* no such store, namespace, queue, region or lease (any more) */
    HEARTH_E_ARGUMENT = -2, /* a null pointer, a size, a name or a value that is not right */
    HEARTH_E_LOCKED = -3,   /* another process, or another open in this one, holds the store */
    HEARTH_E_FORMAT = -4,   /* not a store, a newer format, or damaged beyond opening */
    HEARTH_E_PERMISSION = -5,
    HEARTH_E_NO_SPACE = -6,
    HEARTH_E_IO = -7,       /* the system refused; the message has its words */
    HEARTH_E_RESOURCE = -8, /* memory, descriptors, table places or queue room are used up */
    HEARTH_E_FORKED = -9,   /* the store was opened before this process was forked */
    HEARTH_E_CLOSED = -10,  /* the store is closing or closed */
    HEARTH_E_TIMEOUT = -11,
    HEARTH_E_UNSUPPORTED = -12, /* an endpoint or feature that this library does not have */
    HEARTH_E_INTERNAL = -13
};

/* How an operation ended. */
typedef enum hearth_status {
    HEARTH_STORED = 0,      /* put: there, with the durability asked for */
    HEARTH_ALREADY = 1,     /* put: was there already */
    HEARTH_CONFLICT = 2,    /* put: there with another length or shard table */
    HEARTH_NOT_ADMITTED = 3,
    HEARTH_THROTTLED = 4,   /* try again after retry_ns */
    HEARTH_TOO_LARGE = 5,
    HEARTH_NO_SPACE = 6,
    HEARTH_READ_ONLY = 7,
    HEARTH_FAILED = 8,      /* an I/O error: system_error */
    HEARTH_HIT = 9,         /* get: the pieces hold the bytes, checked. contains: it is there */
    HEARTH_MISS = 10,       /* get, contains: not there; reason tells why */
    HEARTH_DELETED = 11,
    HEARTH_NOT_FOUND = 12,
    HEARTH_CANCELLED = 13,
    HEARTH_TIMED_OUT = 14,  /* its deadline came first */
    HEARTH_INVALID = 15,    /* key, lengths, pieces or namespace are not right */
    HEARTH_DONE = 16        /* touch, pin, unpin */
} hearth_status;

/* Why a get missed. */
typedef enum hearth_reason {
    HEARTH_REASON_NONE = 0,
    HEARTH_REASON_NEVER_PUT = 1,
    HEARTH_REASON_NOT_ADMITTED = 2,
    HEARTH_REASON_EVICTED = 3,
    HEARTH_REASON_EXPIRED = 4,
    HEARTH_REASON_DELETED = 5,
    HEARTH_REASON_QUARANTINED = 6,
    HEARTH_REASON_FAILED_CHECK = 7,
    HEARTH_REASON_DECLINED = 8,
    HEARTH_REASON_OTHER_NAMESPACE = 9,
    HEARTH_REASON_DEVICE_OUT = 10,
    HEARTH_REASON_RECOVERING = 11,
    HEARTH_REASON_DEADLINE = 12
} hearth_reason;

typedef enum hearth_kind {
    HEARTH_GET = 0,
    HEARTH_PUT = 1,
    HEARTH_DELETE = 2,
    HEARTH_TOUCH = 3, /* used elsewhere: keeps it longer */
    HEARTH_PIN = 4,   /* not evicted for timeout_ns, which must be given */
    HEARTH_UNPIN = 5,
    HEARTH_CONTAINS = 6
} hearth_kind;

typedef enum hearth_mode {
    HEARTH_DIRECT = 0, /* the device writes into the pieces; fills no cache */
    HEARTH_CACHED = 1, /* through the DRAM tier, copied out, and kept there */
    HEARTH_LEASE = 2   /* held in the DRAM tier for reading in place; takes no pieces */
} hearth_mode;

typedef enum hearth_durability {
    HEARTH_VOLATILE = 0, /* in memory */
    HEARTH_WRITTEN = 1,  /* the device has completed the write */
    HEARTH_DURABLE = 2   /* flushed: there after any crash */
} hearth_durability;

/* Flags of an operation. */
#define HEARTH_REPLACE 1u /* put: replaces a block that is there */

/* A run of bytes of a key list: offset and length within the data that goes with it. */
typedef struct hearth_span {
    uint32_t offset;
    uint32_t length;
} hearth_span;

/* A run of memory: of a region, or, with region 0, of this process by address. 24 bytes. */
typedef struct hearth_piece {
    uint64_t offset;
    uint64_t length;
    hearth_region region;
    uint32_t reserved;
} hearth_piece;

/* One operation. Offsets are into the data of its batch; pieces and shard_lengths are aligned
 * there to 8 and 4 bytes. Unused fields are zero. 128 bytes. */
typedef struct hearth_operation {
    uint64_t tag; /* comes back in the completion; below 2^63 */
    hearth_namespace space;
    uint8_t kind;       /* hearth_kind */
    uint8_t mode;       /* get: hearth_mode */
    uint8_t durability; /* put: hearth_durability */
    uint8_t flags;
    uint32_t reserved0;
    hearth_span key;    /* 1 to 512 bytes */
    hearth_span parent; /* put: key of the block before it in its chain; length 0: not known */
    uint32_t pieces;    /* offset of hearth_piece[piece_count] */
    uint32_t piece_count;
    uint32_t shard_lengths; /* put: offset of uint32_t[shard_count], adding up to the pieces */
    uint32_t shard_count;   /* put: 0 for one shard. get: shards from first_shard on, 0 for all */
    uint32_t first_shard;
    uint32_t time_to_live_s; /* put: seconds, 0 for the namespace's */
    uint64_t byte_offset;    /* get: a range of bytes; not together with shards */
    uint64_t byte_length;    /* get: 0 for all */
    uint64_t timeout_ns;     /* from submission; 0 for none */
    uint64_t reserved[5];
} hearth_operation;

/* Flags of a completion. */
#define HEARTH_MEMORY_IN_USE 1u /* the device may still write to the pieces: a release follows */
#define HEARTH_RELEASE 2u       /* the memory of a completion that was in use is free now */

/* How one operation came out. Completions of a queue come in any order. 96 bytes. */
typedef struct hearth_completion {
    uint64_t tag;
    uint8_t status; /* hearth_status */
    uint8_t reason; /* hearth_reason */
    uint8_t tier;   /* of a hit: 1 DRAM, 2 device */
    uint8_t flags;
    int32_t system_error; /* errno of a failure */
    uint64_t version;     /* of the block, store-wide increasing */
    uint64_t length;      /* bytes of the block */
    uint64_t delivered;   /* bytes written to the pieces */
    uint32_t shard_count;
    uint32_t reserved0;
    uint64_t retry_ns;
    uint64_t queue_ns;   /* waited before it started */
    uint64_t service_ns; /* from there to its end */
    uint64_t lease;      /* of a lease: its number, never 0 */
    uint64_t reserved[2];
} hearth_completion;

/* --- The library ------------------------------------------------------------------------- */

/* major << 16 | minor of the library. */
uint32_t hearth_version(void);
/* 1 if the library has the feature, else 0. Known: "dir", "unix", "io_uring", "region-shared",
 * "region-device", "lease", "hints", "list", "prefix-ask", "engine-memory". */
int32_t hearth_has_feature(const char *name);
/* What went wrong in this thread's last failing call: one line; valid until its next call. */
const char *hearth_error_message(void);
/* Names of values, such as "HEARTH_E_LOCKED", "hit", "evicted"; "?" for unknown ones. */
const char *hearth_error_name(int32_t error);
const char *hearth_status_name(uint32_t status);
const char *hearth_reason_name(uint32_t reason);

/* --- Stores ------------------------------------------------------------------------------ */

/* Opens a store, making it where the directory is empty; waits until it serves. `endpoint` is
 * "dir:/path" or "dir:/path1,/path2" for one directory a device; "unix:/path" is
 * HEARTH_E_UNSUPPORTED as yet. `options` are "name=value" strings ended by NULL, or NULL; sizes
 * take K, M, G, T, KiB ... (powers of 1024). capacity or value_bytes is needed. The names:
 *   capacity, value_bytes (sets capacity so that so many bytes of values of block size fit),
 *   mode=cache|store, open=quiet|strict|fresh, max_block, segment, memory, staging, slab,
 *   staging_mode=inclusive|exclusive, prefetch=off|chain|successor|session|layer|all,
 *   engine_memory (bytes of the engine's own for blocks, 0: not known), engine_high, engine_low
 *   (shares of it, decimal, at which copying into it ends and begins again),
 *   overload=wait|memory, write_on=insert|again, write_budget (bytes a day, 0 for none),
 *   index_entries, expected_block, table_cache,
 *   driver=auto|io_uring|threads, queue_depth, operations, group, group_buffers, clean_segments,
 *   write_amplification, heat_half_life (cache mode, decimal), scrub (bytes a second, read to find
 *   rot, 0 for none), discard (bytes a second of recycled segments that devices are told to forget,
 *   0 for none), statistics_period (seconds between two pages for tools, decimal, 0 for none),
 *   allow_absent=0|1, holder, record (a file that what is asked and hinted is recorded to, for
 *   hearth-bench replay), record_limit (its bytes). */
int32_t hearth_open(const char *endpoint, const char *const *options, hearth_store *store);
/* Refuses new operations, ends those under way, flushes, checkpoints and closes; waits. Closes the
 * store's namespaces, queues, regions and leases with it. A queue's completions are lost. */
int32_t hearth_close(hearth_store store);
/* Waits until the index is complete: until then a miss may be of a block that is there. */
int32_t hearth_wait_recovered(hearth_store store);
/* Makes everything put with versions up to `through` durable; UINT64_MAX: all. Waits. Fails while
 * `through` is the version of a put that was answered as written and that an earlier flush, which
 * failed, may have lost; and once for each such loss that nobody has been told of. */
int32_t hearth_flush(hearth_store store, uint64_t through);
/* Every put acknowledged with a version up to *version is durable, but for those that a failed
 * flush may have lost (hearth_flush tells); waits a turn of the store. */
int32_t hearth_durable_version(hearth_store store, uint64_t *version);
/* Writes a checkpoint now; waits. */
int32_t hearth_checkpoint(hearth_store store);

#define HEARTH_JSON 0u
#define HEARTH_PROMETHEUS 1u
/* Writes the statistics as text, ended by a NUL, to `text` of `room` bytes, and returns the bytes
 * it takes with the NUL: more than `room`, and nothing was written. text may be NULL if room is
 * 0. Waits a turn of the store. */
int64_t hearth_statistics(hearth_store store, uint32_t format, char *text, uint64_t room);

/* --- Namespaces -------------------------------------------------------------------------- */

#define HEARTH_PACKED 0u
#define HEARTH_ALIGNED 1u /* each shard at a 4096 byte boundary on disk */

/* One field of a namespace's description: what must match for a block to mean the same. */
typedef struct hearth_field {
    const char *name;
    const char *value;
} hearth_field;

/* Opens the namespace with exactly these fields, in any order, making it if there is none; waits.
 * time_to_live_s 0: for ever. cap_bytes 0: no cap of its own. */
int32_t hearth_namespace_open(hearth_store store, const hearth_field *fields, uint32_t count,
                              uint32_t layout, uint32_t time_to_live_s, uint64_t cap_bytes,
                              hearth_namespace *space);
/* Gives the handle back; the blocks stay. */
int32_t hearth_namespace_close(hearth_namespace space);
/* Removes every block of the namespace, durably; waits. The handle is closed with it. */
int32_t hearth_namespace_purge(hearth_namespace space);

/* Whether each key's block is there: found[i] is 1 or 0. From memory, without waiting. Returns how
 * many are there. */
int64_t hearth_contains(hearth_namespace space, const void *data, uint64_t data_bytes,
                        const hearth_span *keys, uint32_t count, uint8_t *found);
/* Keys from the first on that are there without a gap. From memory, without waiting. */
int64_t hearth_prefix(hearth_namespace space, const void *data, uint64_t data_bytes,
                      const hearth_span *keys, uint32_t count);

/* What computing takes, and what it comes to. 96 bytes. */
typedef struct hearth_prefix_ask {
    double tokens_per_second; /* of prefill; 0: what hearth_computed told, or a guess */
    uint32_t tokens_per_block;
    uint32_t layers;       /* later ones are loaded while earlier ones are computed; 0 for 1 */
    uint64_t tokens_after; /* after the last key: computed in any case */
    uint64_t starts_in_ns; /* until the request has its turn */
    uint64_t loads_in_ns;  /* until the blocks are asked for */
    /* Written by the call: */
    uint64_t present;        /* keys that are there; those not worth loading are declined */
    uint64_t declined_bytes; /* of these, on devices */
    uint64_t ready_in_ns;    /* until what is worth loading is expected in memory */
    uint64_t gain_ns;        /* sooner than with nothing read from a device */
    uint32_t is_probe;       /* 1: one block is read to learn what reading takes */
    uint32_t reserved0;
    uint64_t reserved[2];
} hearth_prefix_ask;

/* Keys from the first on that are worth loading: there without a gap, and sooner in memory than
 * computed. Whoever asks is expected to load them. From memory, without waiting. Feature
 * "prefix-ask". */
int64_t hearth_prefix_worth(hearth_namespace space, const void *data, uint64_t data_bytes,
                            const hearth_span *keys, uint32_t count, hearth_prefix_ask *ask);
/* Tells that the engine has prefilled so many tokens in so long. Feature "prefix-ask". */
int32_t hearth_computed(hearth_store store, uint64_t tokens, uint64_t nanoseconds);

/* One block as hearth_list tells of it. */
typedef struct hearth_entry {
    hearth_span key; /* in the data that hearth_list wrote */
    uint64_t length;
    uint64_t version;
    uint32_t shard_count;
    uint32_t reserved;
} hearth_entry;

/* Lists blocks of the namespace: up to `room` entries, their keys into `data` of data_room bytes
 * (at least 512). *cursor is 0 to begin with, and is moved on; 0 again when all were told. Reads
 * from the device and waits. A block that is put, moved or removed meanwhile may be told twice or
 * not at all; all others are told once, but for those of pages that cannot be read, which the
 * statistics count as read errors. Returns the entries written. */
int64_t hearth_list(hearth_namespace space, uint64_t *cursor, hearth_entry *entries, uint32_t room,
                    void *data, uint64_t data_room);

/* --- Regions ----------------------------------------------------------------------------- */

/* Registers host memory, which stays mapped until hearth_unregister has returned; waits. With
 * `descriptor` >= 0 it is the mapping, from its start, of that shared memory (memfd, /dev/shm). */
int32_t hearth_register(hearth_store store, void *address, uint64_t length, int32_t descriptor,
                        hearth_region *region);
/* Copies between device memory and host memory: 0 or an errno; called on the store's thread. */
typedef int32_t (*hearth_copy)(uintptr_t context, uint64_t device_offset, void *host,
                               size_t length);
/* Registers device memory, which only these functions touch; waits. */
int32_t hearth_register_device(hearth_store store, uint64_t length, uintptr_t context,
                               hearth_copy to_device, hearth_copy from_device,
                               hearth_region *region);
/* Forgets a region; waits. Refused while an operation names it whose last completion was not
 * polled; none may be submitted meanwhile. */
int32_t hearth_unregister(hearth_store store, hearth_region region);

/* --- Queues ------------------------------------------------------------------------------ */

/* Called with new completions on the store's own thread; see the thread rules above. */
typedef void (*hearth_callback)(void *context, const hearth_completion *completions,
                                uint32_t count);

/* Opens a queue for at most `capacity` (1 to 2^20) operations under way or not yet polled. With a
 * callback, completions go to it and are not polled. */
int32_t hearth_queue_open(hearth_store store, uint32_t capacity, hearth_callback callback,
                          void *context, hearth_queue *queue);
/* Cancels what is under way, waits until its memory is free, and gives the handle back. */
int32_t hearth_queue_close(hearth_queue queue);
/* Submits operations from the front and returns how many were taken: fewer than `count` when the
 * queue is full. `data` is copied; pieces are read and written until the completion (the release,
 * where one follows). An operation that is not right completes as HEARTH_INVALID; a batch that
 * cannot be read (an offset beyond data_bytes, a reserved field not zero) is HEARTH_E_ARGUMENT, and
 * nothing of it was taken. */
int64_t hearth_submit(hearth_queue queue, const hearth_operation *operations, uint32_t count,
                      const void *data, uint64_t data_bytes);
/* Takes up to `room` completions and returns how many; waits up to timeout_ns for the first, 0:
 * not at all, UINT64_MAX: without bound. 0 after a wait means that it ended without one. */
int64_t hearth_poll(hearth_queue queue, hearth_completion *completions, uint32_t room,
                    uint64_t timeout_ns);
/* A descriptor that is readable while completions wait; the queue's, closed with it. Non-blocking;
 * hearth_poll clears it when it leaves none, or read it. */
int32_t hearth_event_fd(hearth_queue queue);
/* Asks for the operations with tags first to last to be given up; their completions still come. */
int32_t hearth_cancel(hearth_queue queue, uint64_t first, uint64_t last);

/* The bytes of a lease: up to `room` runs of memory, readable until hearth_lease_end. Returns how
 * many there are. */
typedef struct hearth_run {
    const void *address;
    uint64_t length;
} hearth_run;
int64_t hearth_lease_runs(hearth_store store, uint64_t lease, hearth_run *runs, uint32_t room);
int32_t hearth_lease_end(hearth_store store, uint64_t lease);

/* --- Hints ------------------------------------------------------------------------------- */

typedef enum hearth_hint_kind {
    HEARTH_HINT_CHAIN = 0,    /* keys a queued request will read, in order; when_ns: in how long */
    HEARTH_HINT_PAGES = 1,    /* shards `first` to `first + number - 1` of the keys are likely to be
                                 picked at step, layer; confidence in 1/65536 */
    HEARTH_HINT_PROGRESS = 2, /* the request is at this layer of this step */
    HEARTH_HINT_SESSION = 3,  /* hearth_session_state of a session; when_ns: expected return */
    HEARTH_HINT_TOUCHED = 4,  /* the keys were used elsewhere */
    HEARTH_HINT_CANCEL = 5,   /* what was hinted of the request will not come */
    HEARTH_HINT_RELEASE = 6,  /* the keys are not needed soon */
    HEARTH_HINT_ADMITTED = 7, /* the engine holds the keys' blocks in its own memory from now on */
    HEARTH_HINT_EVICTED = 8,  /* it does not any more; without keys: none at all */
    HEARTH_HINT_ENDED = 9     /* the request has ended; keys it has used, in chain order: their gets
                                 and puts were uses, this tells what leaves before what */
} hearth_hint_kind;

typedef enum hearth_session_state {
    HEARTH_SESSION_OPEN = 0,
    HEARTH_SESSION_TOOL_PENDING = 1,
    HEARTH_SESSION_IDLE = 2,
    HEARTH_SESSION_ONE_SHOT = 3,
    HEARTH_SESSION_CLOSED = 4
} hearth_session_state;

/* Advice: what is hinted is brought into the DRAM tier before it is asked for, under what somebody
 * waits for. A wrong hint costs bandwidth, within bounds, and never a byte; one that comes faster
 * than the store takes it is dropped and counted. 72 bytes. */
typedef struct hearth_hint_message {
    hearth_namespace space;
    uint64_t request; /* the engine's number of the request, 0 for none */
    uint64_t session; /* the engine's number of the session, 0 for none */
    uint64_t when_ns; /* from now, 0: not known */
    uint32_t kind;    /* hearth_hint_kind */
    uint32_t state;   /* hearth_session_state */
    uint32_t step;
    uint32_t layer;
    uint32_t first;
    uint32_t number;
    uint32_t confidence;
    uint32_t key_count; /* keys that go with this hint, in order, of the call's list */
    uint64_t reserved;
} hearth_hint_message;

/* Gives hints; `keys` are those of all of them, one hint's after the other's. Never waits. Returns
 * how many were taken; those of an unknown kind are not. */
int64_t hearth_hint(hearth_store store, const hearth_hint_message *hints, uint32_t count,
                    const void *data, uint64_t data_bytes, const hearth_span *keys,
                    uint32_t key_count);

/* --- The engine's own memory ------------------------------------------------------------- */

/* With the option engine_memory the engine may report, by hints, what blocks it holds itself
 * (HEARTH_HINT_ADMITTED, _TOUCHED, _EVICTED): these leave the DRAM tier first, are not brought into
 * it, and come back as used just now when they are let go. And it may give a function by which
 * announced blocks go all the way. Feature "engine-memory". */

/* A block in the DRAM tier that the engine could take. 88 bytes. */
typedef struct hearth_promotion {
    uint64_t token;   /* for hearth_promoted */
    uint64_t request; /* the announced request that is due first, 0 for none */
    uint64_t when_ns; /* in how long it is due */
    uint64_t version;
    uint64_t length;  /* bytes of the value */
    const void *key;  /* readable during the call */
    uint32_t key_length;
    uint32_t shard_count;
    uint32_t layout;  /* HEARTH_PACKED, HEARTH_ALIGNED: the runs hold the gaps, too */
    uint32_t run_count;
    const hearth_run *runs; /* the list is readable during the call, the memory until the end */
    uint64_t reserved[2];
} hearth_promotion;

/* What a function for promotion returns; anything else is a copy that failed. */
enum {
    HEARTH_PROMOTED = 0,       /* the block is copied */
    HEARTH_PROMOTING = 1,      /* the copy is under way: hearth_promoted tells its end */
    HEARTH_PROMOTE_REFUSED = 2 /* no room for it, or not wanted */
};

/* Called on the store's own thread, for announced blocks, those due first first, while the engine
 * holds less than engine_high of its memory; see the thread rules above. */
typedef int32_t (*hearth_promote)(uintptr_t context, const hearth_promotion *block);
/* Sets the function of a namespace, or with NULL takes it away; copies under way go on. What is
 * copied counts as held, as if it had been reported. */
int32_t hearth_promotions(hearth_namespace space, hearth_promote promote, uintptr_t context);
/* A copy that was under way has ended, well (1) or not (0); any thread, and also while the store is
 * closing: that waits up to 5 seconds for copies under way. After it their memory is gone. */
int32_t hearth_promoted(hearth_store store, uint64_t token, uint32_t well);

#ifdef __cplusplus
}
#endif
#endif
