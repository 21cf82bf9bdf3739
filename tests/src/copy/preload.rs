//! Faults of the kernel: a library that is loaded before libc's own and makes calls fail.

use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/stat.h>
#include <stdarg.h>

static int is(const char *what) { const char *v = getenv("FAULT"); return v && strcmp(v, what) == 0; }

/* Only for the target, which is told by its inode: journals must go on working. */
static int target(int fd) {
    const char *v = getenv("FAULT_INODE");
    struct stat s;
    return v && fstat(fd, &s) == 0 && (unsigned long long)s.st_ino == strtoull(v, NULL, 10);
}

int fdatasync(int fd) {
    if (is("fsync") && target(fd)) { errno = EIO; return -1; }
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    return real(fd);
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
    if (is("fallocate")) { errno = EOPNOTSUPP; return -1; }
    if (is("fallocate-sometimes")) { static int n; if (n++ % 2) { errno = EIO; return -1; } }
    int (*real)(int, int, off_t, off_t) = dlsym(RTLD_NEXT, "fallocate");
    return real(fd, mode, offset, length);
}
int fallocate64(int fd, int mode, off_t offset, off_t length) { return fallocate(fd, mode, offset, length); }

int ioctl(int fd, unsigned long request, ...) {
    va_list ap; va_start(ap, request); void *arg = va_arg(ap, void *); va_end(ap);
    if (is("fallocate") && request == 0x127f) { errno = EOPNOTSUPP; return -1; }
    int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
    return real(fd, request, arg);
}

/* One byte of the target, at 5 MiB + 1234, is written wrong. */
ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) {
    ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite64");
    off_t bad = (5 << 20) + 1234;
    ssize_t n = real(fd, data, size, offset);
    if (is("flip") && target(fd) && offset <= bad && bad < offset + n) {
        char byte = ~((const char *)data)[bad - offset];
        const char *path = getenv("FAULT_PATH");
        int (*open_)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
        int (*close_)(int) = dlsym(RTLD_NEXT, "close");
        int plain = open_(path, 1);
        real(plain, &byte, 1, bad);
        fdatasync(plain);
        close_(plain);
    }
    return n;
}
"#;

/// Compiles the library into a folder.
pub fn library(dir: &Path) -> PathBuf {
    let (source, library) = (dir.join("fault.c"), dir.join("fault.so"));
    std::fs::write(&source, SOURCE).unwrap();
    crate::e2e::volume::must(
        Command::new("gcc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(&source)
            .arg("-ldl"),
    );
    library
}
