/* Interpose: stands between the extension and libhearth (LD_PRELOAD), and brings about what a test
 * could otherwise only hope for: an order in which completions reach the binding, a signal that
 * comes inside of a call, an error in the middle. Everything else, and what it has no orders for,
 * is the library's own. A test gives its orders by ctypes, and uses one queue at a time then. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <hearth.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PASS, RELEASE_FIRST, ANSWER_FIRST, INTERRUPT_AFTER_POLL, INTERRUPT_THEN_FAIL };

#define ROOM 256

static volatile int order, held, is_waiting, may_go_on;
static hearth_completion kept[ROOM];
static const char *volatile message;

void interpose(int what) { order = what; }
void interpose_message(const char *text) { message = text; }
int interpose_held(void) { return held; }
int interpose_waiting(void) { return is_waiting; }
void interpose_go_on(void) { may_go_on = 1; }

static void *library(const char *name)
{
    void *handle = dlopen("libhearth.so.1", RTLD_LAZY | RTLD_NOLOAD);
    void *found = handle ? dlsym(handle, name) : NULL;
    if (found) return found;
    fprintf(stderr, "interpose: %s\n", dlerror());
    abort();
}

static void pause_ms(int milliseconds)
{
    struct timespec time = {0, milliseconds * 1000000L};
    nanosleep(&time, NULL);
}

/* Each operation that has ended is told of as a read given up at its deadline, in two completions,
 * the second of which comes with the next poll. */
static int64_t in_two(hearth_completion *completions, int64_t count)
{
    for (int64_t index = 0; index < count; index++) {
        hearth_completion answer = completions[index];
        hearth_completion release = {.tag = answer.tag, .flags = HEARTH_RELEASE};
        answer.status = HEARTH_TIMED_OUT;
        answer.flags = HEARTH_MEMORY_IN_USE;
        completions[index] = order == RELEASE_FIRST ? release : answer;
        kept[held++] = order == RELEASE_FIRST ? answer : release;
    }
    return count;
}

int64_t hearth_poll(hearth_queue queue, hearth_completion *completions, uint32_t room,
                    uint64_t timeout_ns)
{
    static int64_t (*poll)(hearth_queue, hearth_completion *, uint32_t, uint64_t);
    if (!poll) *(void **)&poll = library("hearth_poll");
    int64_t count;
    switch (order) {
    case RELEASE_FIRST:
    case ANSWER_FIRST:
        if (held > 0) {
            count = held;
            memcpy(completions, kept, (size_t)count * sizeof *kept);
            held = 0;
            return count;
        }
        return in_two(completions, poll(queue, completions, room, timeout_ns));
    case INTERRUPT_AFTER_POLL:
        if (timeout_ns == 0) return 0;
        count = poll(queue, completions, room, timeout_ns);
        if (count > 0) {
            order = PASS;
            raise(SIGINT);
        }
        return count;
    case INTERRUPT_THEN_FAIL:
        if (held++ == 0) {
            raise(SIGINT);
            pause_ms(100); /* longer than signals go unlooked at */
            return 0;
        }
        order = PASS;
        held = 0;
        return poll(0, completions, room, timeout_ns); /* no such queue */
    default:
        return poll(queue, completions, room, timeout_ns);
    }
}

/* Answers once another thread has said so. */
int32_t hearth_durable_version(hearth_store store, uint64_t *version)
{
    static int32_t (*call)(hearth_store, uint64_t *);
    if (!call) *(void **)&call = library("hearth_durable_version");
    is_waiting = 1;
    for (int waited = 0; waited < 10000 && !may_go_on; waited++) pause_ms(1);
    return may_go_on ? call(store, version) : HEARTH_E_TIMEOUT;
}

const char *hearth_error_message(void)
{
    static const char *(*call)(void);
    if (!call) *(void **)&call = library("hearth_error_message");
    return message ? message : call();
}
