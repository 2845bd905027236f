/* Pieces: what Python calls a buffer as hearth_pieces of the batch's data. A Py_buffer is held for
 * each object; it is let go when the batch is. */
#include "binding.h"

#include <string.h>

void *batch_reserve(Batch *batch, uint64_t bytes, uint64_t alignment)
{
    uint64_t start = (batch->data_bytes + alignment - 1) & ~(alignment - 1);
    if (bytes > (UINT64_C(1) << 40) - start) {
        PyErr_SetString(PyExc_ValueError, "the batch is too large");
        return NULL;
    }
    if (start + bytes > batch->data_room) {
        uint64_t room = (start + bytes) * 2;
        uint8_t *data = PyMem_Realloc(batch->data, room);
        if (!data) {
            PyErr_NoMemory();
            return NULL;
        }
        batch->data = data;
        batch->data_room = room;
    }
    memset(batch->data + batch->data_bytes, 0, start - batch->data_bytes);
    batch->data_bytes = start + bytes;
    return batch->data + start;
}

int64_t piece_add(Batch *batch, hearth_region region, uint64_t offset, uint64_t length)
{
    hearth_piece *piece = batch_reserve(batch, sizeof *piece, 8);
    if (!piece) return -1;
    *piece = (hearth_piece){.offset = offset, .length = length, .region = region};
    return 1;
}

int region_use(Batch *batch, RegionObject *region)
{
    if (!region->registered) {
        PyErr_SetString(PyExc_ValueError, "the region is not registered any more");
        return -1;
    }
    if (region->store != batch->space->store) {
        PyErr_SetString(PyExc_ValueError, "the region belongs to another store");
        return -1;
    }
    for (uint32_t index = 0; index < batch->region_count; index++)
        if (batch->regions[index] == region) return 0;
    if (batch->region_count == batch->region_room) {
        uint32_t room = batch->region_room ? batch->region_room * 2 : 4;
        RegionObject **regions = PyMem_Realloc(batch->regions, room * sizeof *regions);
        if (!regions) {
            PyErr_NoMemory();
            return -1;
        }
        batch->regions = regions;
        batch->region_room = room;
    }
    Py_INCREF(region);
    region->users++;
    batch->regions[batch->region_count++] = region;
    return 0;
}

static int64_t region_piece(Batch *batch, PyObject *part, Py_ssize_t index)
{
    RegionObject *region = (RegionObject *)PyTuple_GET_ITEM(part, 0);
    uint64_t offset, length;
    if (take_uint64(PyTuple_GET_ITEM(part, 1), "the offset in a region", &offset) < 0
        || take_uint64(PyTuple_GET_ITEM(part, 2), "the length in a region", &length) < 0)
        return -1;
    if (offset > region->length || length > region->length - offset) {
        PyErr_Format(PyExc_ValueError,
                     "buffers[%zd]: %llu bytes at %llu lie outside the region of %llu", index,
                     (unsigned long long)length, (unsigned long long)offset,
                     (unsigned long long)region->length);
        return -1;
    }
    if (region_use(batch, region) < 0) return -1;
    return piece_add(batch, region->number, offset, length);
}

static int64_t memory_piece(Batch *batch, PyObject *part, Py_ssize_t index)
{
    uint64_t address, length;
    if (take_uint64(PyTuple_GET_ITEM(part, 0), "an address", &address) < 0
        || take_uint64(PyTuple_GET_ITEM(part, 1), "a length at an address", &length) < 0)
        return -1;
    if (address == 0 || length > UINT64_MAX - address) {
        PyErr_Format(PyExc_ValueError, "buffers[%zd]: no memory has address %llu, length %llu",
                     index, (unsigned long long)address, (unsigned long long)length);
        return -1;
    }
    return piece_add(batch, 0, address, length);
}

/* Says which buffer it was, and what it could have been, before the exporter's own words. */
static int64_t buffer_refused(PyObject *buffer, bool writable, Py_ssize_t index)
{
    PyObject *type, *value, *trace;
    if (PyErr_ExceptionMatches(PyExc_MemoryError)) return -1;
    if (!PyObject_CheckBuffer(buffer)) {
        PyErr_Format(PyExc_TypeError,
                     "buffers[%zd] is a %s; needed is an object with the buffer protocol, "
                     "(address, length), (region, offset, length), or a list of these",
                     index, Py_TYPE(buffer)->tp_name);
        return -1;
    }
    PyErr_Fetch(&type, &value, &trace);
    PyErr_Format(PyExc_BufferError, "buffers[%zd]: %S (it must be contiguous%s)", index,
                 value ? value : Py_None, writable ? ", and writable for a get" : "");
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    return -1;
}

static int64_t object_piece(Batch *batch, PyObject *buffer, bool writable, Py_ssize_t index)
{
    Views *views = batch->views;
    if (!views || views->count == (int)(sizeof views->views / sizeof *views->views)) {
        views = PyMem_Malloc(sizeof *views);
        if (!views) {
            PyErr_NoMemory();
            return -1;
        }
        views->count = 0;
        views->next = batch->views;
        batch->views = views;
    }
    Py_buffer *view = &views->views[views->count];
    if (PyObject_GetBuffer(buffer, view, writable ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0)
        return buffer_refused(buffer, writable, index);
    views->count++;
    return piece_add(batch, 0, (uint64_t)(uintptr_t)view->buf, (uint64_t)view->len);
}

static int64_t part_take(Batch *batch, PyObject *part, bool writable, Py_ssize_t index)
{
    if (PyTuple_Check(part)) {
        Py_ssize_t size = PyTuple_GET_SIZE(part);
        if (size == 3 && Py_TYPE(PyTuple_GET_ITEM(part, 0)) == region_type)
            return region_piece(batch, part, index);
        if (size == 2) return memory_piece(batch, part, index);
        PyErr_Format(PyExc_TypeError,
                     "buffers[%zd] is %R; a tuple is (address, length) or "
                     "(region, offset, length)",
                     index, part);
        return -1;
    }
    return object_piece(batch, part, writable, index);
}

int64_t pieces_take(Batch *batch, PyObject *buffer, bool writable, Py_ssize_t index)
{
    if (!PyList_Check(buffer)) return part_take(batch, buffer, writable, index);
    PyObject *parts = PyList_AsTuple(buffer);
    if (!parts) return -1;
    int64_t count = 0;
    for (Py_ssize_t part = 0; part < PyTuple_GET_SIZE(parts); part++) {
        int64_t taken = part_take(batch, PyTuple_GET_ITEM(parts, part), writable, index);
        if (taken < 0) {
            count = -1;
            break;
        }
        count += taken;
    }
    Py_DECREF(parts);
    return count;
}

/* Whether a buffer's items are whole numbers in this machine's order. */
static bool is_integer(const Py_buffer *view)
{
    const char *format = view->format ? view->format : "B";
    if (*format == '@' || *format == '=' || (*format == '<' && PY_LITTLE_ENDIAN)
        || (*format == '>' && PY_BIG_ENDIAN))
        format++;
    return strlen(format) == 1 && strchr("ilqnILQN", *format)
        && (view->itemsize == 4 || view->itemsize == 8);
}

static int rows_copy(const Py_buffer *view, uint32_t count, int64_t *numbers)
{
    const char *format = view->format + strlen(view->format) - 1;
    bool is_unsigned = strchr("ILQN", *format) != NULL;
    Py_ssize_t stride = view->strides ? view->strides[0] : view->itemsize;
    const char *from = view->buf;
    for (uint32_t index = 0; index < count; index++, from += stride) {
        int32_t narrow;
        if (view->itemsize == 4) {
            memcpy(&narrow, from, 4);
            numbers[index] = is_unsigned ? (int64_t)(uint32_t)narrow : narrow;
        } else {
            memcpy(&numbers[index], from, 8); /* an unsigned one of 2^63 or more looks negative */
        }
    }
    return 0;
}

int64_t *rows_take(PyObject *rows, uint32_t count)
{
    int64_t *numbers = PyMem_Malloc(((size_t)count + 1) * sizeof *numbers);
    Py_buffer view;
    Py_ssize_t given;
    if (!numbers) {
        PyErr_NoMemory();
        return NULL;
    }
    if (PyObject_CheckBuffer(rows)) {
        if (PyObject_GetBuffer(rows, &view, PyBUF_STRIDED_RO | PyBUF_FORMAT) < 0) goto failed;
        if (view.ndim != 1 || !is_integer(&view)) {
            PyErr_Format(PyExc_TypeError,
                         "rows has %d dimensions of format '%s'; needed is one of int32 or int64",
                         view.ndim, view.format ? view.format : "B");
            PyBuffer_Release(&view);
            goto failed;
        }
        given = view.shape[0];
        if (given == (Py_ssize_t)count) rows_copy(&view, count, numbers);
        PyBuffer_Release(&view);
    } else {
        PyObject *items = take_items(rows, "rows");
        if (!items) goto failed;
        given = PyTuple_GET_SIZE(items);
        for (Py_ssize_t index = 0; given == (Py_ssize_t)count && index < given; index++) {
            uint64_t number;
            if (take_uint64(PyTuple_GET_ITEM(items, index), "a row", &number) < 0) {
                Py_DECREF(items);
                goto failed;
            }
            numbers[index] = number > INT64_MAX ? -1 : (int64_t)number;
        }
        Py_DECREF(items);
    }
    if (given != (Py_ssize_t)count) {
        PyErr_Format(PyExc_ValueError, "%u keys, but %zd rows", count, given);
        goto failed;
    }
    return numbers;
failed:
    PyMem_Free(numbers);
    return NULL;
}
