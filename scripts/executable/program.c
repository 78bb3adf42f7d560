/* The program: the interpreter with its modules, and the zip archive at the end of this file as its only place of code. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <nss.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

/* A static program cannot load a library: one of the host would need the libc of the host. OpenSSL and Python ask for
   libraries only where a configuration or an import names one, and report the failure. */
void *dlopen(const char *name, int flags) { (void)name, (void)flags; return NULL; }
void *dlsym(void *handle, const char *name) { (void)handle, (void)name; return NULL; }
int dlclose(void *handle) { (void)handle; return 0; }
int dladdr(const void *address, void *info) { (void)address, (void)info; return 0; }
char *dlerror(void) { return "a static program loads no libraries"; }

/* glibc would load the services that /etc/nsswitch.conf names (sss, resolve, ldap, ...) from the host. Files and DNS are
   built in. */
static void use_built_in_name_services(void) {
    static const char *const only_files[] = {"aliases", "ethers", "group", "gshadow", "initgroups", "netgroup", "networks",
                                             "passwd", "protocols", "publickey", "rpc", "services", "shadow"};
    __nss_configure_lookup("hosts", "files dns");
    for (size_t i = 0; i < sizeof only_files / sizeof *only_files; i++)
        __nss_configure_lookup(only_files[i], "files");
}

/* renameat2(old directory, old name, new directory, new name, flags), which the standard library does not have. */
static PyObject *rename_with_flags(PyObject *self, PyObject *args) {
    int source, target, result;
    const char *old, *new;
    unsigned int flags;
    (void)self;
    if (!PyArg_ParseTuple(args, "iyiyI", &source, &old, &target, &new, &flags))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = renameat2(source, old, target, new, flags);
    Py_END_ALLOW_THREADS
    return result == 0 ? Py_NewRef(Py_None) : PyErr_SetFromErrno(PyExc_OSError);
}

static PyMethodDef system_calls[] = {{"renameat2", rename_with_flags, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef system_module = {PyModuleDef_HEAD_INIT, .m_name = "_system_calls", .m_size = 0,
                                           .m_methods = system_calls};
static PyObject *init_system_calls(void) { return PyModule_Create(&system_module); }

#define MODULE(name, init) PyObject *init(void);
#include "modules.h"
#undef MODULE

static void add_modules(void) {
    PyImport_AppendInittab("_system_calls", init_system_calls);
#define MODULE(name, init) PyImport_AppendInittab(name, init);
#include "modules.h"
#undef MODULE
}

#ifdef INTERPRETER /* only during the build: it compiles the byte code */

int main(int argc, char **argv) {
    add_modules();
    return Py_BytesMain(argc, argv);
}

#else

/* The zip archive ends with a record of 22 bytes; a copy that is cut off does not. */
static int is_complete(const char *path) {
    char end[22];
    int file = open(path, O_RDONLY | O_CLOEXEC), found;
    if (file < 0)
        return errno != EACCES; /* the interpreter reports it */
    found = lseek(file, -(off_t)sizeof end, SEEK_END) >= 0 && read(file, end, sizeof end) == (ssize_t)sizeof end &&
            memcmp(end, "PK\5\6", 4) == 0;
    close(file);
    return found;
}

static void require(PyStatus status) {
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
}

static void set(PyConfig *config, wchar_t **field, const char *value) {
    require(PyConfig_SetBytesString(config, field, value));
}

/* /proc/self/exe stays this file even if another version takes its name while it runs. */
static const char *place_of_code(const char *path) {
    return access("/proc/self/exe", R_OK) == 0 ? "/proc/self/exe" : path;
}

static const char *own_path(void) {
    static char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0 && !realpath((const char *)getauxval(AT_EXECFN), path)) /* no /proc */
        return (const char *)getauxval(AT_EXECFN);
    return path;
}

/* Isolated: no variable, directory, or file of the host's Python has an effect. UTF-8 whatever the locale. */
static void initialize(int argc, char **argv, const char *path, const char *code) {
    PyPreConfig preconfig;
    PyConfig config;
    wchar_t *place;
    PyPreConfig_InitIsolatedConfig(&preconfig);
    preconfig.utf8_mode = 1;
    require(Py_PreInitialize(&preconfig));
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.write_bytecode = 0;
    config.pathconfig_warnings = 0;
    config.install_signal_handlers = 1;
    set(&config, &config.executable, path);
    set(&config, &config.program_name, path);
    set(&config, &config.home, code); /* else pyvenv.cfg and ._pth files beside the program would be read */
    set(&config, &config.prefix, code);
    set(&config, &config.exec_prefix, code);
    set(&config, &config.base_prefix, code);
    set(&config, &config.base_exec_prefix, code);
    set(&config, &config.run_command, "from _start import main; main()");
    require(PyConfig_SetBytesArgv(&config, argc, argv));
    place = Py_DecodeLocale(code, NULL);
    require(PyWideStringList_Append(&config.module_search_paths, place));
    config.module_search_paths_set = 1;
    PyMem_RawFree(place);
    require(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
}

/* Until the program handles them (see start.py), so that a signal right after the start has the exit code of the program. */
static void hold_signals(void) {
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGHUP);
    sigaddset(&held, SIGINT);
    sigaddset(&held, SIGTERM);
    sigprocmask(SIG_BLOCK, &held, NULL);
}

int main(int argc, char **argv) {
    const char *path, *code;
    hold_signals();
    path = own_path();
    code = place_of_code(path);
    if (!is_complete(code)) {
        fprintf(stderr, "restore-agent: %s is not complete; copy it again and compare its SHA-256\n", path);
        return 2;
    }
    use_built_in_name_services();
    add_modules();
    initialize(argc, argv, path, code);
    return Py_RunMain();
}

#endif
