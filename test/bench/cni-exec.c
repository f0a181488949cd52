/*
 * Runs CNI plugins as a container runtime does and times each from exec to exit. Lines in:
 *
 *   job PLUGIN COMMAND CONTAINER NETNS CONFIG-FILE     queued
 *   go                                                 all queued at once
 *
 * Lines out: `CONTAINER EXIT-CODE MICROSECONDS` for each job, then `done MICROSECONDS`. A plugin's output goes to a
 * memory file, and to standard error when it failed.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_JOBS = 512, TEXT = 512 };

struct job {
  char plugin[TEXT], command[16], container[TEXT], netns[TEXT], config[TEXT];
  pid_t pid;
  double started;
  int output;
};

static struct job jobs[MAX_JOBS];

static double microseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static void start(struct job *job) {
  char command[64], container[TEXT + 32], netns[TEXT + 32];
  snprintf(command, sizeof command, "CNI_COMMAND=%s", job->command);
  snprintf(container, sizeof container, "CNI_CONTAINERID=%s", job->container);
  snprintf(netns, sizeof netns, "CNI_NETNS=%s", job->netns);
  char *environment[] = {command, container, netns, "CNI_IFNAME=eth0", "CNI_PATH=/usr/lib/cni", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
  char *arguments[] = {job->plugin, NULL};
  posix_spawn_file_actions_t actions;
  job->output = memfd_create("output", MFD_CLOEXEC);
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, job->config, O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, job->output, 1);
  job->started = microseconds();
  if (posix_spawn(&job->pid, job->plugin, &actions, NULL, arguments, environment) != 0) {
    perror(job->plugin);
    exit(1);
  }
  posix_spawn_file_actions_destroy(&actions);
}

static void show_failure(struct job *job) {
  char text[4096];
  lseek(job->output, 0, SEEK_SET);
  ssize_t length = read(job->output, text, sizeof text);
  if (length > 0) fwrite(text, 1, length, stderr);
}

static void go(int count) {
  double began = microseconds();
  for (int i = 0; i < count; i++) start(&jobs[i]);
  for (int left = count; left > 0; left--) {
    int status;
    pid_t pid = wait(&status);
    double now = microseconds();
    for (int i = 0; i < count; i++) {
      if (jobs[i].pid != pid) continue;
      int code = WIFEXITED(status) ? WEXITSTATUS(status) : 255;
      printf("%s %d %.0f\n", jobs[i].container, code, now - jobs[i].started);
      if (code != 0) show_failure(&jobs[i]);
      close(jobs[i].output);
    }
  }
  printf("done %.0f\n", microseconds() - began);
  fflush(stdout);
}

int main(void) {
  char line[4096];
  int count = 0;
  while (fgets(line, sizeof line, stdin)) {
    if (strncmp(line, "go", 2) == 0) {
      go(count);
      count = 0;
    } else if (count < MAX_JOBS) {
      struct job *job = &jobs[count++];
      if (sscanf(line, "job %511s %15s %511s %511s %511s", job->plugin, job->command, job->container, job->netns, job->config) != 5) return 2;
    }
  }
  return 0;
}
