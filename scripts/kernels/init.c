/*
 * The first process of a guest: makes a root file system out of the machine's own and starts the guest's script in it.
 *
 *   the machine's root, by 9p, read-only ──┐
 *   a tmpfs ───────────────────────────────┴─ overlay = the guest's root, every write of which dies with the guest
 *
 * The initramfs holds this program, the modules of /modules/order in that order, and nothing else. A second 9p share,
 * /report, is the one place where the guest writes for others to read; the script to run lies there as `start`. Every
 * failure ends in a panic, which ends the guest.
 *
 * Sources: Documentation/filesystems/{ramfs-rootfs-initramfs,overlayfs,9p}.rst; finit_module(2), mount(2).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void fail(const char *what) {
  printf("init: %s: %s\n", what, strerror(errno));
  exit(1); /* the kernel panics when its first process ends */
}

static void load_modules(void) {
  FILE *order = fopen("/modules/order", "r");
  if (!order) fail("/modules/order");
  char name[256], path[300];
  while (fgets(name, sizeof name, order)) {
    name[strcspn(name, "\n")] = 0;
    snprintf(path, sizeof path, "/modules/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)) fail(path);
    close(fd);
  }
  fclose(order);
}

static void mount_at(const char *source, const char *target, const char *type, unsigned long flags, const char *data) {
  mkdir(target, 0755);
  if (mount(source, target, type, flags, data) < 0) fail(target);
}

int main(void) {
  setvbuf(stdout, NULL, _IONBF, 0);
  load_modules();
  mount_at("machine", "/machine", "9p", MS_RDONLY, "trans=virtio,version=9p2000.L,cache=loose,msize=262144");
  mount_at("tmpfs", "/own", "tmpfs", 0, "mode=755");
  mkdir("/own/upper", 0755);
  mkdir("/own/work", 0755);
  mount_at("overlay", "/root", "overlay", 0, "lowerdir=/machine,upperdir=/own/upper,workdir=/own/work");
  if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0) fail("/root");
  mount_at("report", "/report", "9p", 0, "trans=virtio,version=9p2000.L,msize=262144");
  execl("/bin/sh", "sh", "/report/start", (char *)NULL);
  fail("/bin/sh");
}
