/*
 * SIGBUS. Inside a guard it is the answer to a question: jump back with the address. Outside it is
 * news: poison in a mapping becomes an event for JavaScript. Anything else is not ours.
 */
#include "holdfast.h"

#include <string.h>
#include <sys/prctl.h>
#include <ucontext.h>

/* The kernel's names, which some C libraries hide. */
#ifndef BUS_MCEERR_AR
#define BUS_MCEERR_AR 4
#define BUS_MCEERR_AO 5
#endif
#ifndef PR_MCE_KILL
#define PR_MCE_KILL 33
#define PR_MCE_KILL_SET 1
#define PR_MCE_KILL_EARLY 1
#endif

_Thread_local struct guard *volatile current_guard;
_Thread_local struct injection *volatile current_injection;

enum { EVENT_FREE, EVENT_CLAIMED, EVENT_FULL };

struct event {
  atomic_int state;
  int map;
  bool action_required;
  size_t offset, length;
};

/* Slots rather than a queue: the handler runs on any thread, nested even, and may not wait. When
 * all are taken the notice is dropped; touching the poison under a guard will meet it again. */
#define EVENTS 1024
static struct event events[EVENTS];
static uv_async_t wakeup;
static atomic_bool listening;
static napi_env listener_env;
static napi_ref listener;
static struct sigaction previous;

/* How often the same instruction met the same address since the event loop last turned. */
static void *volatile last_address;
static uintptr_t volatile last_instruction;
static volatile int repeats;

static uintptr_t instruction_of(void *context) {
#if defined(__x86_64__)
  return (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
  return (uintptr_t)((ucontext_t *)context)->uc_mcontext.pc;
#else
  (void)context;
  return 0;
#endif
}

static bool is_machine_check(const siginfo_t *info) {
  return info->si_code == BUS_MCEERR_AR || info->si_code == BUS_MCEERR_AO;
}

/* The start and the size of what the kernel says is damaged. */
static char *unit_of(const siginfo_t *info, size_t *size) {
  *size = 1;
  if (!is_machine_check(info)) return info->si_addr;
  *size = info->si_addr_lsb > 0 && info->si_addr_lsb < 48 ? (size_t)1 << info->si_addr_lsb : PAGE;
  return (char *)((uintptr_t)info->si_addr & ~(uintptr_t)(*size - 1));
}

static void jump_if_guarded(const siginfo_t *info) {
  struct guard *guard = current_guard;
  size_t size;
  char *start = unit_of(info, &size);
  if (guard == NULL || start >= guard->to || start + size <= guard->from) return;
  guard->failed = start > guard->from ? start : guard->from;
  guard->unit = size > PAGE ? size : PAGE;
  siglongjmp(guard->jump, 1);
}

static bool store_event(int map, size_t offset, size_t length, bool action_required) {
  for (int i = 0; i < EVENTS; i++) {
    int expected = EVENT_FREE;
    if (!atomic_compare_exchange_strong(&events[i].state, &expected, EVENT_CLAIMED)) continue;
    events[i].map = map;
    events[i].offset = offset;
    events[i].length = length;
    events[i].action_required = action_required;
    atomic_store(&events[i].state, EVENT_FULL);
    return true;
  }
  return false;
}

static bool overlap(const char *base, size_t length, const char *start, size_t size) {
  return base != NULL && start < base + length && start + size > base;
}

static bool is_ours(const siginfo_t *info) {
  size_t size;
  char *start = unit_of(info, &size);
  for (int i = 0; i < MAP_LIMIT; i++)
    if (overlap(mappings[i].base, mappings[i].length, start, size)) return true;
  return false;
}

/* True when the damage is in a mapping of ours, and told. */
static bool tell(const siginfo_t *info) {
  size_t size;
  char *start = unit_of(info, &size);
  bool ours = false;
  for (int i = 0; i < MAP_LIMIT; i++) {
    char *base = mappings[i].base;
    if (!overlap(base, mappings[i].length, start, size)) continue;
    char *from = start < base ? base : start, *to = base + mappings[i].length;
    if (start + size < to) to = start + size;
    store_event(i, (size_t)(from - base), (size_t)(to - from), info->si_code == BUS_MCEERR_AR);
    ours = true;
  }
  if (ours && atomic_load(&listening)) uv_async_send(&wakeup);
  return ours;
}

/*
 * The answer to our own madvise(MADV_HWPOISON) names the whole unit that is mapped, and of a page
 * that a mapped device maps for itself and for its target either place; we know which pages it was.
 * However many of them there are, the signal comes once.
 */
static bool is_injection(const siginfo_t *info) {
  struct injection *injection = current_injection;
  if (injection == NULL || info->si_code != BUS_MCEERR_AR || !is_ours(info)) return false;
  injection->told = store_event(injection->map, injection->offset, injection->pages.length, true);
  if (atomic_load(&listening)) uv_async_send(&wakeup);
  return true;
}

/*
 * A real consumption of poison outside a guard would fault again for ever. The third time in a row
 * is taken for that.
 */
static bool goes_round(const siginfo_t *info, void *context) {
  uintptr_t instruction = instruction_of(context);
  bool same = info->si_addr == last_address && instruction == last_instruction;
  repeats = same ? repeats + 1 : 1;
  last_address = info->si_addr;
  last_instruction = instruction;
  return repeats >= 3;
}

/* Not ours: what would have happened without us. */
static void pass_on(int number, siginfo_t *info, void *context) {
  bool fault = info->si_code > 0 && info->si_code != BUS_MCEERR_AO;
  bool handler = previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN;
  if (fault || previous.sa_handler == SIG_DFL) {
    sigaction(SIGBUS, &previous, NULL);
    if (!fault) raise(SIGBUS); /* a fault comes again by itself on return */
  } else if (handler && (previous.sa_flags & SA_SIGINFO)) {
    previous.sa_sigaction(number, info, context);
  } else if (handler) {
    previous.sa_handler(number);
  }
}

static void on_bus_error(int number, siginfo_t *info, void *context) {
  if (is_injection(info)) return;
  if (info->si_code > 0 && info->si_code != BUS_MCEERR_AO) jump_if_guarded(info);
  if (info->si_code == BUS_MCEERR_AO && tell(info)) return;
  if (info->si_code == BUS_MCEERR_AR && !goes_round(info, context) && tell(info)) return;
  pass_on(number, info, context);
}

/* At every map() and openChannel(): process.on('SIGBUS') may have replaced the handler. */
void signal_install(void) {
  struct sigaction current, action;
  sigaction(SIGBUS, NULL, &current);
  if ((current.sa_flags & SA_SIGINFO) && current.sa_sigaction == on_bus_error) return;
  previous = current;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_bus_error;
  /* NODEFER: the jump out of the handler restores no signal mask, so SIGBUS must never enter it. */
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, NULL);
}

static void deliver(napi_env env, int map, size_t offset, size_t length, bool action_required) {
  napi_handle_scope scope;
  napi_value handler, global, event, flag, error;
  napi_open_handle_scope(env, &scope);
  napi_get_reference_value(env, listener, &handler);
  napi_get_global(env, &global);
  napi_create_object(env, &event);
  napi_get_boolean(env, action_required, &flag);
  set_value(env, event, "map", number_value(env, map));
  set_value(env, event, "offset", number_value(env, (double)offset));
  set_value(env, event, "length", number_value(env, (double)length));
  set_value(env, event, "actionRequired", flag);
  if (napi_make_callback(env, NULL, global, handler, 1, &event, NULL) == napi_pending_exception &&
      napi_get_and_clear_last_exception(env, &error) == napi_ok)
    napi_fatal_exception(env, error);
  napi_close_handle_scope(env, scope);
}

static void deliver_all(void) {
  for (int i = 0; i < EVENTS; i++) {
    if (atomic_load(&events[i].state) != EVENT_FULL) continue;
    int map = events[i].map;
    size_t offset = events[i].offset, length = events[i].length;
    bool action_required = events[i].action_required;
    atomic_store(&events[i].state, EVENT_FREE);
    deliver(listener_env, map, offset, length, action_required);
  }
}

static void on_wakeup(uv_async_t *handle) {
  (void)handle;
  repeats = 0;
  deliver_all();
}

static napi_value js_deliver_bus_errors(napi_env env, napi_callback_info info) {
  (void)info;
  if (atomic_load(&listening) && listener_env == env) deliver_all();
  return NULL;
}

static void stop_listening(void *data) {
  (void)data;
  atomic_store(&listening, false);
  uv_close((uv_handle_t *)&wakeup, NULL);
}

static napi_value js_on_bus_error(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  napi_ref reference;
  uv_loop_t *loop;
  if (args.bad) return NULL;
  if (atomic_load(&listening) && listener_env != env) {
    napi_throw_error(env, "EBUSY", "another thread listens for bus errors");
    return NULL;
  }
  if (napi_create_reference(env, args.value[0], 1, &reference) != napi_ok) {
    napi_throw_type_error(env, NULL, "argument 1 must be a function");
    return NULL;
  }
  if (atomic_load(&listening)) {
    napi_delete_reference(env, listener);
  } else {
    napi_get_uv_event_loop(env, &loop);
    uv_async_init(loop, &wakeup, on_wakeup);
    uv_unref((uv_handle_t *)&wakeup); /* waiting for bad news keeps no process alive */
    napi_add_env_cleanup_hook(env, stop_listening, NULL);
    listener_env = env;
    atomic_store(&listening, true);
  }
  listener = reference;
  signal_install();
  prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0);
  uv_async_send(&wakeup); /* what came before anyone listened */
  return NULL;
}

void signal_register(napi_env env, napi_value exports) {
  static const struct method methods[] = {{"onBusError", js_on_bus_error},
                                          {"deliverBusErrors", js_deliver_bus_errors}};
  register_methods(env, exports, methods, sizeof methods / sizeof *methods);
}
