#ifndef SLIPWAY_CLINUX_SHIM_H
#define SLIPWAY_CLINUX_SHIM_H
/* Without _GNU_SOURCE: it changes types that the Glibc module has already seen. What it hides is declared here. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

long syscall(long number, ...);
int malloc_trim(size_t pad);
void *memmem(const void *haystack, size_t haystack_size, const void *needle, size_t needle_size);

/* prctl is variadic, which Swift cannot call: orphaned grandchildren become our children. */
static inline int clinux_set_child_subreaper(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); }

/* The calling thread's name, at most 15 bytes, as top and gdb show it. */
static inline void clinux_name_thread(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }

/* epoll_data is a union, which Swift reaches awkwardly: registers a descriptor under a numeric key. */
static inline int clinux_epoll_control(int epoll, int operation, int descriptor, uint32_t events, uint64_t key) {
    struct epoll_event event = {.events = events, .data = {.u64 = key}};
    return epoll_ctl(epoll, operation, descriptor, &event);
}

/* The same union, read back. */
static inline uint64_t clinux_epoll_key(const struct epoll_event *event) { return event->data.u64; }

/* syscall is variadic: a descriptor that becomes readable when the process ends, or -1. */
static inline int clinux_pidfd_open(pid_t process) {
#ifdef SYS_pidfd_open
    return (int)syscall(SYS_pidfd_open, process, 0);
#else
    errno = ENOSYS;
    return -1;
#endif
}

/* Swift sees the environment as a mutable global; this is the pointer read once. */
static inline char *const *clinux_environment(void) {
    extern char **environ;
    return environ;
}

/* GNU extensions that the Glibc module hides; each wrapper has a fixed argument list, so Swift can call it. */
int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *actions, int from);
static const short clinux_spawn_setsid = 0x80;
static inline int clinux_memfd_create(const char *name) { return (int)syscall(SYS_memfd_create, name, 1U); }
static inline int clinux_pipe_cloexec(int *ends) { return (int)syscall(SYS_pipe2, ends, O_CLOEXEC); }
static inline int clinux_set_pipe_size(int fd, int size) { return fcntl(fd, 1031, size); }
static inline int clinux_pidfd_send_signal(int fd, int sig) { return (int)syscall(SYS_pidfd_send_signal, fd, sig, (void *)0, 0); }

/* Confinement of a process about to become a script; each wrapper hides a variadic call, an enumeration or a GNU extension. */
int setgroups(size_t size, const gid_t *list);
static inline int clinux_no_new_privileges(void) { return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }
static inline int clinux_unshare_mounts(void) { return (int)syscall(SYS_unshare, 0x00020000); }
static inline int clinux_unshare_user_and_mounts(void) { return (int)syscall(SYS_unshare, 0x10020000); }
static inline int clinux_mount_private(void) { return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL); }
static inline int clinux_mount_tmpfs(const char *path, const char *options) {
    return mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, options);
}
static inline int clinux_limit(int resource, unsigned long value) {
    struct rlimit limit = {value, value};
    return setrlimit((__rlimit_resource_t)resource, &limit);
}
static inline int clinux_become_user(uid_t user, gid_t group) {
    return setgroups(1, &group) || setgid(group) || setuid(user) ? -1 : 0;
}
#endif
