/* System calls around a mount and its processes. */
#include "holdfast.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The same numbers on every architecture; missing from older headers. */
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

static napi_value js_mount(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  char *source = arg_string(&args, 0), *target = arg_string(&args, 1);
  char *type = arg_string(&args, 2), *data = arg_string(&args, 4);
  uint64_t flags = arg_size(&args, 3);
  if (!args.bad && mount(source, target, type, (unsigned long)flags, data) != 0)
    throw_errno(env, errno, "mount");
  free(source);
  free(target);
  free(type);
  free(data);
  return NULL;
}

static napi_value js_umount(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  char *target = arg_string(&args, 0);
  int flags = arg_int(&args, 1);
  if (!args.bad && umount2(target, flags) != 0) throw_errno(env, errno, "umount");
  free(target);
  return NULL;
}

static napi_value js_socket_pair(napi_env env, napi_callback_info info) {
  int ends[2];
  napi_value result;
  (void)info;
  /* Close-on-exec: a child gets its end through spawn()'s stdio, which duplicates it. */
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return throw_errno(env, errno, "socketpair");
  napi_create_array_with_length(env, 2, &result);
  napi_set_element(env, result, 0, number_value(env, ends[0]));
  napi_set_element(env, result, 1, number_value(env, ends[1]));
  return result;
}

/* One descriptor from the peer: >= 0, or minus an errno. */
static int receive_descriptor(int socket) {
  char byte;
  union {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec part = {&byte, 1};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                           .msg_controllen = sizeof control};
  ssize_t got;
  do got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got < 0) return -errno;
  if (got == 0) return -ECONNRESET; /* closed before it sent one */
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (header == NULL || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
      header->cmsg_len != CMSG_LEN(sizeof(int)))
    return -EBADMSG;
  int fd;
  memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return fd;
}

static napi_value js_receive_descriptor(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  int socket = arg_int(&args, 0);
  if (args.bad) return NULL;
  int fd = receive_descriptor(socket);
  return fd >= 0 ? number_value(env, fd) : throw_errno(env, -fd, "receiving a descriptor");
}

static napi_value js_open_process(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  int pid = arg_int(&args, 0);
  if (args.bad) return NULL;
  int fd = (int)syscall(SYS_pidfd_open, pid, 0);
  return fd >= 0 ? number_value(env, fd) : throw_errno(env, errno, "pidfd_open");
}

/* The kernel keeps si_code > 0 for itself, so the receiver sees SI_QUEUE. */
static napi_value js_signal_process(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  int pidfd = arg_int(&args, 0), number = arg_int(&args, 1), value = arg_int(&args, 2);
  siginfo_t detail;
  if (args.bad) return NULL;
  memset(&detail, 0, sizeof detail);
  detail.si_signo = number;
  detail.si_code = SI_QUEUE;
  detail.si_pid = getpid();
  detail.si_uid = getuid();
  detail.si_value.sival_int = value;
  int error = syscall(SYS_pidfd_send_signal, pidfd, number, &detail, 0) == 0 ? 0 : errno;
  return error == 0 ? NULL : throw_errno(env, error, "pidfd_send_signal");
}

static napi_value js_peer_credentials(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  int fd = arg_int(&args, 0);
  struct ucred peer;
  socklen_t length = sizeof peer;
  napi_value result;
  if (args.bad) return NULL;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
    return throw_errno(env, errno, "SO_PEERCRED");
  napi_create_object(env, &result);
  set_value(env, result, "pid", number_value(env, peer.pid));
  set_value(env, result, "uid", number_value(env, peer.uid));
  set_value(env, result, "gid", number_value(env, peer.gid));
  return result;
}

void mount_register(napi_env env, napi_value exports) {
  static const struct method methods[] = {{"mount", js_mount},
                                          {"umount", js_umount},
                                          {"socketPair", js_socket_pair},
                                          {"receiveDescriptor", js_receive_descriptor},
                                          {"openProcess", js_open_process},
                                          {"signalProcess", js_signal_process},
                                          {"peerCredentials", js_peer_credentials}};
  register_methods(env, exports, methods, sizeof methods / sizeof *methods);
}
