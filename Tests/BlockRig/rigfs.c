/* rigfs: a file system of one file, `disk`, under a loop device: a block device that remembers
 * every write and flush in the order in which they came. `record` writes that log; `replay` is the
 * device as it was after a prefix of the log, power cut: what was written behind the last flush is
 * kept, lost or torn, by a seed. What is written to a replay stays in memory.
 *
 * Log: records of 32 bytes (magic, kind, offset, length, number), then a write's bytes. One thread:
 * the order of the log is the order in which the device took things. */

#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, SECTOR = 512, MAGIC = 0x47495248, WRITE = 1, FLUSH = 2 };

struct record {
    uint32_t magic, kind;
    uint64_t offset, length, number;
};

static uint64_t size;
static unsigned char **pages;    /* NULL: zeros */
static unsigned char *own;       /* whether a page is ours to change */
static int logFile = -1;         /* -1 in a replay */
static volatile uint64_t *counter; /* records in the log so far, read by the workload */
static uint64_t number;

static void fail(const char *what)
{
    fprintf(stderr, "rigfs: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void put(uint64_t offset, const unsigned char *from, uint64_t length, int borrow)
{
    while (length > 0) {
        uint64_t page = offset / PAGE, at = offset % PAGE;
        uint64_t count = PAGE - at < length ? PAGE - at : length;
        if (borrow && count == PAGE) {
            if (own[page]) free(pages[page]);
            pages[page] = (unsigned char *)from;
            own[page] = 0;
        } else {
            if (!own[page]) {
                unsigned char *fresh = calloc(1, PAGE);
                if (!fresh) fail("memory");
                if (pages[page]) memcpy(fresh, pages[page], PAGE);
                pages[page] = fresh;
                own[page] = 1;
            }
            memcpy(pages[page] + at, from, count);
        }
        offset += count;
        from += count;
        length -= count;
    }
}

static void append(uint32_t kind, uint64_t offset, uint64_t length, const void *bytes)
{
    struct record record = {MAGIC, kind, offset, length, number};
    if (logFile < 0) return;
    if (write(logFile, &record, sizeof record) != sizeof record) fail("log");
    for (uint64_t done = 0; bytes && done < length;) {
        ssize_t count = write(logFile, (const char *)bytes + done, length - done);
        if (count <= 0) fail("log");
        done += (uint64_t)count;
    }
    __atomic_store_n(counter, ++number, __ATOMIC_SEQ_CST);
}

/* What the device holds after `prefix` records. */
static void replay(const char *path, uint64_t prefix, uint64_t seed)
{
    int file = open(path, O_RDONLY);
    struct stat info;
    if (file < 0 || fstat(file, &info) != 0) fail(path);
    const unsigned char *log = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (log == MAP_FAILED) fail(path);
    uint64_t lastFlush = 0;
    for (int pass = 0; pass < 2; pass++) {
        uint64_t at = 0;
        for (uint64_t n = 0; n < prefix; n++) {
            struct record record;
            if (at + sizeof record > (uint64_t)info.st_size) break;
            memcpy(&record, log + at, sizeof record);
            at += sizeof record;
            if (record.magic != MAGIC || record.offset + record.length > size) {
                fprintf(stderr, "rigfs: record %lu is none\n", (unsigned long)n);
                exit(1);
            }
            if (record.kind == FLUSH) {
                if (pass == 0) lastFlush = n;
                continue;
            }
            uint64_t length = record.length;
            if (pass == 1 && seed != 0 && n > lastFlush) {
                /* splitmix64 */
                uint64_t z = seed + n * 0x9E3779B97F4A7C15u;
                z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
                z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
                z ^= z >> 31;
                if (z % 8 < 3) length = 0;
                else if (z % 8 == 3) length = (z >> 8) % (length / SECTOR + 1) * SECTOR;
            }
            if (pass == 1) put(record.offset, log + at, length, 1);
            at += record.length;
        }
    }
}

static int getAttributes(const char *path, struct stat *info, struct fuse_file_info *file)
{
    (void)file;
    memset(info, 0, sizeof *info);
    if (strcmp(path, "/") == 0) {
        info->st_mode = S_IFDIR | 0700;
        info->st_nlink = 2;
        return 0;
    }
    if (strcmp(path, "/disk") != 0) return -ENOENT;
    info->st_mode = S_IFREG | 0600;
    info->st_nlink = 1;
    info->st_size = (off_t)size;
    info->st_blocks = (blkcnt_t)(size / 512);
    return 0;
}

static int list(
    const char *path, void *into, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *file,
    enum fuse_readdir_flags flags)
{
    (void)path, (void)offset, (void)file, (void)flags;
    fill(into, "disk", NULL, 0, 0);
    return 0;
}

static int openFile(const char *path, struct fuse_file_info *file)
{
    if (strcmp(path, "/disk") != 0) return -ENOENT;
    file->direct_io = 1;
    return 0;
}

static int readFile(
    const char *path, char *into, size_t count, off_t offset, struct fuse_file_info *file)
{
    (void)path, (void)file;
    if ((uint64_t)offset >= size) return 0;
    if (count > size - (uint64_t)offset) count = size - (uint64_t)offset;
    for (size_t done = 0; done < count;) {
        uint64_t page = ((uint64_t)offset + done) / PAGE, at = ((uint64_t)offset + done) % PAGE;
        size_t part = PAGE - at < count - done ? PAGE - at : count - done;
        if (pages[page]) memcpy(into + done, pages[page] + at, part);
        else memset(into + done, 0, part);
        done += part;
    }
    return (int)count;
}

static int writeFile(
    const char *path, const char *from, size_t count, off_t offset, struct fuse_file_info *file)
{
    (void)path, (void)file;
    if ((uint64_t)offset + count > size) return -ENOSPC;
    put((uint64_t)offset, (const unsigned char *)from, count, 0);
    append(WRITE, (uint64_t)offset, count, from);
    return (int)count;
}

static int flushFile(const char *path, int dataOnly, struct fuse_file_info *file)
{
    (void)path, (void)dataOnly, (void)file;
    append(FLUSH, 0, 0, NULL);
    return 0;
}

static const struct fuse_operations operations = {
    .getattr = getAttributes, .readdir = list, .open = openFile, .read = readFile,
    .write = writeFile, .fsync = flushFile,
};

int main(int count, char **words)
{
    if (count < 6 || (strcmp(words[1], "record") != 0 && strcmp(words[1], "replay") != 0)) {
        fprintf(stderr, "usage: rigfs record MOUNT BYTES LOG COUNTER\n"
                        "       rigfs replay MOUNT BYTES LOG PREFIX [SEED]\n");
        return 2;
    }
    size = strtoull(words[3], NULL, 10) / PAGE * PAGE;
    pages = calloc(size / PAGE, sizeof *pages);
    own = calloc(size / PAGE, 1);
    if (!pages || !own) fail("memory");
    if (strcmp(words[1], "record") == 0) {
        logFile = open(words[4], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
        if (logFile < 0) fail(words[4]);
        int file = open(words[5], O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (file < 0 || ftruncate(file, PAGE) != 0) fail(words[5]);
        counter = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (counter == MAP_FAILED) fail(words[5]);
    } else {
        replay(words[4], strtoull(words[5], NULL, 10),
               count > 6 ? strtoull(words[6], NULL, 10) : 0);
    }
    char *arguments[] = {words[0], "-f", "-s", words[2]};
    return fuse_main(4, arguments, &operations, NULL);
}
