/* A library of another make than the stub: -D replaces what a function does. Names of parameters: see below. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef uint64_t E;
typedef void (*LOG)(const char *, va_list);
typedef struct {
    char *vmx, *server, *thumb;
    long reserved;
    int cred;
    char *user, *pass, *key;
    uint32_t port, nfc;
    char rest[56];
} P;

static LOG to;
static P *params;
static void L(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    to(format, args);
    va_end(args);
}

#ifndef INIT
#define INIT
#endif
#ifndef CONN
#define CONN
#endif
#ifndef OPEN
#define OPEN
#endif
#ifndef READ
#define READ cb(data, 0); return 25000
#endif
#ifndef TEXT
#define TEXT strdup("some error")
#endif

E VixDiskLib_InitEx(uint32_t a, uint32_t b, LOG l, LOG w, LOG p, const char *libdir, const char *conf) { to = l; INIT; return 0; }
void VixDiskLib_Exit(void) {}
const char *VixDiskLib_ListTransportModes(void) { return "file:nbdssl:nbd"; }
char *VixDiskLib_GetErrorText(E e, const char *l) { return TEXT; }
void VixDiskLib_FreeErrorText(char *t) { free(t); }
P *VixDiskLib_AllocateConnectParams(void) { return calloc(1, 256); }
void VixDiskLib_FreeConnectParams(P *p) { free(p->server); memset(p, 0xee, 128); free(p); }
E VixDiskLib_ConnectEx(P *p, char ro, const char *s, const char *t, void **c) { *c = (void *)1; params = p; CONN; return 0; }
E VixDiskLib_Open(void *c, const char *path, uint32_t f, void **h) { *h = (void *)2; OPEN; return 0; }
const char *VixDiskLib_GetTransportMode(void *h) { return "nbdssl"; }
E VixDiskLib_Close(void *h) { return 0; }
E VixDiskLib_Disconnect(void *h) { return strcmp(params->server, "vcenter.test") ? 3 : 0; }
E VixDiskLib_GetInfo(void *h, char **i) { *i = calloc(1, 64); *(uint64_t *)(*i + 24) = 8; return 0; }
void VixDiskLib_FreeInfo(char *i) { free(i); }
E VixDiskLib_Read(void) { return 0; }
E VixDiskLib_Write(void) { return 0; }
E VixDiskLib_Create(void) { return 0; }
E VixDiskLib_Flush(void) { return 0; }
E VixDiskLib_ReadAsync(void *h, uint64_t s, uint64_t n, char *buf, void (*cb)(void *, E), void *data) { READ; }
E VixDiskLib_WriteAsync(void) { return 0; }
E VixDiskLib_Wait(void) { return 0; }
E VixDiskLib_QueryAllocatedBlocks(void) { return 0; }
E VixDiskLib_FreeBlockList(void) { return 0; }
