/* Waiting, waking, callbacks, cancelling and closing, from several threads; and fork. */
#include "harness.h"

#include <sys/eventfd.h>

static hearth_store store;
static hearth_namespace space;

static void *close_later(void *queue) {
    usleep(50000);
    return (void *)(intptr_t)hearth_queue_close(*(hearth_queue *)queue);
}

/* A poll that waits ends when the queue is closed. */
static void closing_wakes(void) {
    hearth_queue queue;
    hearth_completion end;
    pthread_t thread;
    void *result;
    MUST(hearth_queue_open(store, 8, NULL, NULL, &queue));
    pthread_create(&thread, NULL, close_later, &queue);
    REFUSED(hearth_poll(queue, &end, 1, UINT64_MAX), HEARTH_E_CLOSED, "closed by another");
    pthread_join(thread, &result);
    CHECK(result == NULL);
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void timeouts(void) {
    hearth_queue queue;
    hearth_completion end;
    MUST(hearth_queue_open(store, 8, NULL, NULL, &queue));
    double begin = seconds();
    CHECK(hearth_poll(queue, &end, 1, SECOND / 20) == 0);
    double took = seconds() - begin;
    CHECK(took >= 0.045 && took < 5);
    CHECK(hearth_queue_close(queue) == 0);
}

static void descriptors(void) {
    hearth_queue queue;
    hearth_completion ends[4];
    static char value[4][4096];
    static batch b;
    MUST(hearth_queue_open(store, 8, NULL, NULL, &queue));
    int fd = hearth_event_fd(queue);
    CHECK(fd >= 0 && hearth_event_fd(queue) == fd);
    struct pollfd waits = {fd, POLLIN, 0};
    CHECK(poll(&waits, 1, 0) == 0);
    clear(&b);
    for (int i = 0; i < 4; i++) {
        char key[16];
        snprintf(key, sizeof key, "fd %d", i);
        add(&b, space, HEARTH_PUT, key, value[i], sizeof value[i]);
    }
    CHECK(submit(queue, &b) == 4);
    int64_t got = 0;
    while (got < 4) {
        CHECK(poll(&waits, 1, 10000) == 1);
        /* Some read it themselves: it is readable again while completions are left. */
        uint64_t count;
        CHECK(read(fd, &count, 8) == 8);
        int64_t part = hearth_poll(queue, ends, 1, 0);
        CHECK(part == 1);
        if (part <= 0) break;
        got += part;
    }
    CHECK(poll(&waits, 1, 0) == 0);
    /* What is decided on this thread wakes it as well. */
    clear(&b);
    add(&b, space, 99, "invalid", NULL, 0);
    CHECK(submit(queue, &b) == 1 && poll(&waits, 1, 1000) == 1);
    CHECK(hearth_poll(queue, ends, 4, 0) == 1 && ends[0].status == HEARTH_INVALID);
    CHECK(poll(&waits, 1, 0) == 0);
    CHECK(hearth_queue_close(queue) == 0);
}

/* --- Callbacks */

enum { ROUNDS = 2000 };
typedef struct called {
    pthread_mutex_t lock;
    pthread_cond_t ready;
    hearth_queue queue;
    int count, right, refused;
    char value[4096];
    batch again;
} called;

static void on_completions(void *context, const hearth_completion *ends, uint32_t count) {
    called *c = (called *)context;
    pthread_mutex_lock(&c->lock);
    for (uint32_t i = 0; i < count; i++) {
        c->count++;
        c->right += ends[i].status == HEARTH_HIT || ends[i].status == HEARTH_STORED;
        /* It may submit: each completion brings the next operation. */
        if (c->count < ROUNDS) {
            uint8_t mode = c->count % 2 ? HEARTH_CACHED : HEARTH_DIRECT;
            clear(&c->again);
            add(&c->again, space, HEARTH_GET, "called", c->value, sizeof c->value)->mode = mode;
            if (submit(c->queue, &c->again) != 1) c->refused++;
        }
    }
    /* And may not wait. */
    hearth_completion end;
    if (hearth_flush(store, 0) != HEARTH_E_ARGUMENT) c->refused++;
    if (hearth_queue_close(c->queue) != HEARTH_E_ARGUMENT) c->refused++;
    if (hearth_close(store) != HEARTH_E_ARGUMENT) c->refused++;
    if (hearth_poll(c->queue, &end, 1, 1) != HEARTH_E_ARGUMENT) c->refused++;
    pthread_cond_signal(&c->ready);
    pthread_mutex_unlock(&c->lock);
}

static void callbacks(void) {
    static called c;
    hearth_completion end;
    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.ready, NULL);
    MUST(hearth_queue_open(store, 1, on_completions, &c, &c.queue));
    REFUSED(hearth_poll(c.queue, &end, 1, 0), HEARTH_E_ARGUMENT, "callback");
    REFUSED(hearth_event_fd(c.queue), HEARTH_E_ARGUMENT, "callback");
    static batch b;
    clear(&b);
    add(&b, space, HEARTH_PUT, "called", c.value, sizeof c.value)->durability = HEARTH_WRITTEN;
    pthread_mutex_lock(&c.lock);
    CHECK(submit(c.queue, &b) == 1);
    while (c.count < ROUNDS) pthread_cond_wait(&c.ready, &c.lock);
    CHECK(c.right == ROUNDS && c.refused == 0);
    pthread_mutex_unlock(&c.lock);
    CHECK(hearth_queue_close(c.queue) == 0);
}

/* What a callback submits may be decided at once, on and on: others have their turn. */
static int endless_count, endless_over;

static void on_endless(void *context, const hearth_completion *ends, uint32_t count) {
    static batch b;
    (void)ends;
    (void)count;
    __sync_fetch_and_add(&endless_count, 1);
    if (__sync_fetch_and_add(&endless_over, 0)) return;
    clear(&b);
    add(&b, space, 99, "never right", NULL, 0);
    submit(*(hearth_queue *)context, &b);
}

static void endless(void) {
    static hearth_queue queue, other;
    static batch b;
    char value[4096] = {1};
    hearth_completion end;
    MUST(hearth_queue_open(store, 1, on_endless, &queue, &queue));
    MUST(hearth_queue_open(store, 1, NULL, NULL, &other));
    clear(&b);
    add(&b, space, 99, "never right", NULL, 0);
    CHECK(submit(queue, &b) == 1);
    for (int round = 0; round < 20; round++) {
        end = run(other, space, HEARTH_PUT, 0, "beside", value, sizeof value);
        CHECK(end.status == HEARTH_STORED || end.status == HEARTH_ALREADY);
        CHECK(hearth_flush(store, UINT64_MAX) == 0);
    }
    CHECK(__sync_fetch_and_add(&endless_count, 0) > 20);
    __sync_fetch_and_add(&endless_over, 1);
    CHECK(hearth_queue_close(queue) == 0);
    CHECK(hearth_queue_close(other) == 0);
}

/* --- Many threads on one queue */

static hearth_queue shared;
static volatile int got_all, wrong;

static void *submitter(void *number) {
    batch *b = (batch *)malloc(sizeof *b);
    char value[2048];
    for (int round = 0; round < 100; round++) {
        clear(b);
        for (uint32_t i = 0; i < 16; i++) {
            char key[32];
            snprintf(key, sizeof key, "t%d %d %u", (int)(intptr_t)number, round, i);
            add(b, space, HEARTH_PUT, key, value, sizeof value)->durability = HEARTH_VOLATILE;
        }
        uint32_t done = 0;
        while (done < b->count) {
            int64_t taken = hearth_submit(shared, b->operations + done, b->count - done, &b->data,
                                          sizeof b->data);
            if (taken < 0) __sync_fetch_and_add(&wrong, 1);
            if (taken < 0) break;
            done += (uint32_t)taken;
            if (taken == 0) usleep(100);
        }
        /* Its memory is used until the completions, which others take. */
        usleep(2000);
    }
    usleep(200000);
    free(b);
    return NULL;
}

static void *poller(void *unused) {
    hearth_completion ends[8];
    (void)unused;
    while (__atomic_load_n(&got_all, __ATOMIC_RELAXED) < 4 * 1600) {
        int64_t part = hearth_poll(shared, ends, 8, SECOND / 10);
        if (part < 0) __sync_fetch_and_add(&wrong, 1);
        for (int64_t i = 0; i < part; i++) {
            if (ends[i].status != HEARTH_STORED && ends[i].status != HEARTH_THROTTLED) {
                __sync_fetch_and_add(&wrong, 1);
            }
        }
        if (part > 0) __sync_fetch_and_add(&got_all, (int)part);
    }
    return NULL;
}

static void many_threads(void) {
    pthread_t threads[6];
    MUST(hearth_queue_open(store, 64, NULL, NULL, &shared));
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, submitter, (void *)(intptr_t)i);
    for (int i = 4; i < 6; i++) pthread_create(&threads[i], NULL, poller, NULL);
    for (int i = 0; i < 6; i++) pthread_join(threads[i], NULL);
    CHECK(got_all == 4 * 1600);
    CHECK(wrong == 0);
    CHECK(hearth_queue_close(shared) == 0);
}

/* --- Giving up */

static void cancelling(void) {
    hearth_queue queue;
    hearth_completion ends[BATCH];
    static char value[BATCH][65536];
    static batch b;
    MUST(hearth_queue_open(store, BATCH, NULL, NULL, &queue));
    clear(&b);
    for (uint32_t i = 0; i < BATCH; i++) {
        char key[16];
        snprintf(key, sizeof key, "cancel %u", i);
        hearth_operation *o = add(&b, space, HEARTH_PUT, key, value[i], sizeof value[i]);
        o->durability = HEARTH_DURABLE;
        o->tag = 1000 + i;
    }
    CHECK(submit(queue, &b) == BATCH);
    CHECK(hearth_cancel(queue, 1000, 1031) == 0);
    int finals = 0, stored_late = 0;
    while (finals < BATCH) {
        int64_t part = hearth_poll(queue, ends, BATCH, 10 * SECOND);
        if (part <= 0) break;
        for (int64_t i = 0; i < part; i++) {
            if (!(ends[i].flags & HEARTH_MEMORY_IN_USE)) finals++;
            if (ends[i].flags & HEARTH_RELEASE) continue;
            CHECK(ends[i].status == HEARTH_STORED || ends[i].status == HEARTH_CANCELLED);
            stored_late += ends[i].tag >= 1032 && ends[i].status == HEARTH_STORED;
        }
    }
    CHECK(finals == BATCH);
    CHECK(stored_late == 32);

    /* A deadline that is over before it begins. */
    clear(&b);
    add(&b, space, HEARTH_GET, "cancel 40", value[0], sizeof value[0])->timeout_ns = 1;
    CHECK(submit(queue, &b) == 1 && hearth_poll(queue, ends, 1, 10 * SECOND) == 1);
    CHECK(ends[0].status == HEARTH_TIMED_OUT || ends[0].status == HEARTH_HIT);

    /* Closed with operations under way: it waits for them, and their memory is free. */
    clear(&b);
    for (uint32_t i = 0; i < BATCH; i++) {
        char key[16];
        snprintf(key, sizeof key, "closed %u", i);
        add(&b, space, HEARTH_PUT, key, value[i], sizeof value[i])->durability = HEARTH_DURABLE;
    }
    CHECK(submit(queue, &b) >= 1);
    CHECK(hearth_queue_close(queue) == 0);
    memset(value, 0, sizeof value);
}

/* --- Fork */

static void forked(void) {
    hearth_queue queue;
    MUST(hearth_queue_open(store, 8, NULL, NULL, &queue));
    static batch b;
    static char value[4096];
    clear(&b);
    add(&b, space, HEARTH_PUT, "forked", value, sizeof value);
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        failed = 0;
        hearth_completion end;
        hearth_namespace made;
        hearth_field field = {"a", "b"};
        hearth_span key = {0, 1};
        uint8_t found;
        REFUSED(hearth_close(store), HEARTH_E_FORKED, "before this process was forked");
        CHECK(hearth_flush(store, 0) == HEARTH_E_FORKED);
        CHECK(hearth_namespace_open(store, &field, 1, 0, 0, 0, &made) == HEARTH_E_FORKED);
        CHECK(hearth_contains(space, "k", 1, &key, 1, &found) == HEARTH_E_FORKED);
        CHECK(submit(queue, &b) == HEARTH_E_FORKED);
        CHECK(hearth_poll(queue, &end, 1, SECOND) == HEARTH_E_FORKED);
        CHECK(hearth_queue_close(queue) == HEARTH_E_FORKED);
        CHECK(hearth_event_fd(queue) == HEARTH_E_FORKED);
        CHECK(hearth_statistics(store, 0, NULL, 0) == HEARTH_E_FORKED);
        CHECK(hearth_close(0) == HEARTH_E_HANDLE);
        /* A store of its own works. */
        char parent[4096];
        strcpy(parent, endpoint_text);
        hearth_store own = 0;
        int32_t opened = hearth_open(new_endpoint(strchr(parent, ':') + 1, "child"), small_store,
                                     &own);
        CHECK(opened == 0);
        if (opened == 0) {
            hearth_namespace in = open_space(own, "child");
            hearth_queue its;
            MUST(hearth_queue_open(own, 4, NULL, NULL, &its));
            CHECK(run(its, in, HEARTH_PUT, 0, "k", value, 4096).status == HEARTH_STORED);
            CHECK(hearth_close(own) == 0);
        }
        fprintf(stderr, "%s", failed ? "the forked child failed\n" : "");
        _exit(failed ? 1 : 0);
    }
    int status = 1;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    /* The parent goes on. */
    CHECK(run(queue, space, HEARTH_PUT, 0, "forked", value, 4096).status == HEARTH_STORED);
    CHECK(hearth_queue_close(queue) == 0);
}

/* --- Closing the store under threads that use it */

static volatile int ended_right;

static void *user(void *unused) {
    (void)unused;
    static char value[4096];
    batch *b = (batch *)malloc(sizeof *b);
    hearth_queue queue = 0;
    hearth_completion ends[8];
    int32_t code = hearth_queue_open(store, 8, NULL, NULL, &queue);
    int64_t last = code;
    while (last >= 0) {
        clear(b);
        add(b, space, HEARTH_PUT, "user", value, sizeof value)->flags = HEARTH_REPLACE;
        last = submit(queue, b);
        if (last < 0) break;
        last = hearth_poll(queue, ends, 8, SECOND);
    }
    if (last == HEARTH_E_CLOSED || last == HEARTH_E_HANDLE) __sync_fetch_and_add(&ended_right, 1);
    /* The store may still hold memory of operations until its close has returned. */
    usleep(500000);
    free(b);
    return NULL;
}

static void closing_under_use(void) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, user, NULL);
    usleep(200000);
    CHECK(hearth_close(store) == 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    CHECK(ended_right == 4);
}

int main(int count, char **words) {
    if (count != 2) return 2;
    MUST(hearth_open(new_endpoint(words[1], "threads"), small_store, &store));
    space = open_space(store, "m");
    closing_wakes();
    timeouts();
    descriptors();
    callbacks();
    endless();
    many_threads();
    cancelling();
    forked();
    closing_under_use();
    return finish("threads");
}
