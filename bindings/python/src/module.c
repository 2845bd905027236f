/* hearth._hearth: the module. Importing it opens nothing: it only looks up names. */
#include "binding.h"

static PyObject *version(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    uint32_t number = hearth_version();
    return PyUnicode_FromFormat("%u.%u", number >> 16, number & 0xffff);
}

static PyMethodDef functions[] = {
    {"version", version, METH_NOARGS, "version()\n--\n\nThe library's version."},
    {"_open", (PyCFunction)(void (*)(void))store_open, METH_FASTCALL,
     "_open(endpoint, options, /)\n--\n\n"},
    {"_close_all", store_close_all, METH_NOARGS, "_close_all()\n--\n\n"},
    {"_lmcache_keys", lmcache_keys, METH_O, "_lmcache_keys(keys, /)\n--\n\n"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "hearth._hearth",
    .m_size = -1, /* one a process: stores belong to the process, not to an interpreter */
    .m_methods = functions,
};

PyTypeObject *make_type(PyObject *module, PyType_Spec *spec)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromSpec(spec);
    if (!type) return NULL;
    /* Objects come from calls, never from the type: one without a handle is none. (From 3.10 on
     * there is a flag for this.) */
    type->tp_new = NULL;
    Py_INCREF(type);
    if (PyModule_AddObject(module, strrchr(spec->name, '.') + 1, (PyObject *)type) < 0) {
        Py_DECREF(type);
        Py_DECREF(type);
        return NULL;
    }
    return type;
}

PyMODINIT_FUNC PyInit__hearth(void)
{
    if (hearth_version() >> 16 != HEARTH_VERSION_MAJOR) {
        PyErr_Format(PyExc_ImportError, "libhearth has version %u, but hearth was built for %d",
                     hearth_version() >> 16, HEARTH_VERSION_MAJOR);
        return NULL;
    }
    PyObject *types = PyImport_ImportModule("hearth._types");
    if (!types) return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (module
        && (outcome_initialize(types) < 0 || store_prepare(module) < 0
            || region_prepare(module) < 0 || namespace_prepare(module) < 0
            || queue_prepare(module) < 0))
        Py_CLEAR(module);
    Py_DECREF(types);
    return module;
}
