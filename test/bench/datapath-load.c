#define _GNU_SOURCE
/*
 * Load in short slices, without the cost of starting anything: both ends stay alive and wait.
 *
 *   datapath-load serve                        takes what comes, until its standard input ends
 *   datapath-load drive ADDRESS4 ADDRESS6 PID...
 *
 * The second reads a line for each slice and answers "<amount> <nanoseconds> <nanoseconds of CPU>", the CPU time being its
 * own and that of the processes named: the serving one and the kernel's softirq threads.
 *
 *   tcp MS      bytes of one IPv4 connection, until the last of them is acknowledged
 *   tcp6 MS     the same over IPv6
 *   udp MS N    datagrams of N bytes that arrived
 *   rtt MS      round trips of 64 bytes of TCP, one at a time
 *
 * Ports: TCP 7001 takes, TCP 7002 answers, UDP 7003 counts and tells its count to a datagram that begins with '?'.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char block[128 << 10];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static long long now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* On one CPU, and before everything else that wants it: what the machine does beside is not what is measured. */
static void pin(int cpu)
{
	struct sched_param first = {.sched_priority = 1};
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof set, &set))
		fail("affinity");
	sched_setscheduler(0, SCHED_FIFO, &first);
}

static int open_port(int type, int port)
{
	int one = 1, none = 0, size = 4 << 20, fd = socket(AF_INET6, type, 0);
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &none, sizeof none);
	/* Fixed: what a connection has tuned itself to by luck would stay for the whole run. */
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
	if (bind(fd, (struct sockaddr *)&any, sizeof any) || (type == SOCK_STREAM && listen(fd, 8)))
		fail("listen");
	return fd;
}

/* A thread that serves a socket: all of one process, so that one clock tells their CPU time. */
static void begin(void *(*body)(void *), int fd)
{
	pthread_t thread;
	if (pthread_create(&thread, NULL, body, (void *)(long)fd) || pthread_detach(thread))
		fail("thread");
}

static void *take(void *socket)
{
	static char sink[128 << 10];
	while (recv((long)socket, sink, sizeof sink, 0) > 0)
		;
	return NULL;
}

static void *echo(void *socket)
{
	char message[4096];
	int one = 1, fd = (long)socket;
	ssize_t n;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	while ((n = recv(fd, message, sizeof message, 0)) > 0 && send(fd, message, n, 0) == n)
		;
	return NULL;
}

static void accept_all(int listening, void *(*body)(void *))
{
	for (;;) {
		int fd = accept(listening, NULL, NULL);
		if (fd < 0)
			fail("accept");
		begin(body, fd);
	}
}

static void *take_all(void *socket)
{
	accept_all((long)socket, take);
	return NULL;
}

static void *echo_all(void *socket)
{
	accept_all((long)socket, echo);
	return NULL;
}

static void *count_datagrams(void *socket)
{
	static char datagram[64 << 10];
	unsigned long long count = 0;
	for (;;) {
		struct sockaddr_in6 from;
		socklen_t length = sizeof from;
		ssize_t n = recvfrom((long)socket, datagram, sizeof datagram, 0, (struct sockaddr *)&from, &length);
		if (n > 0 && datagram[0] == '?')
			sendto((long)socket, &count, sizeof count, 0, (struct sockaddr *)&from, length);
		else if (n > 0)
			count++;
	}
	return NULL;
}

static int serve(void)
{
	pin(1);
	begin(take_all, open_port(SOCK_STREAM, 7001));
	begin(echo_all, open_port(SOCK_STREAM, 7002));
	begin(count_datagrams, open_port(SOCK_DGRAM, 7003));
	printf("%d\n", getpid());
	fflush(stdout);
	while (read(0, block, sizeof block) > 0)
		;
	return 0;
}

static int reach(int type, const char *address, int port)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int is6 = strchr(address, ':') != NULL;
	int fd = socket(is6 ? AF_INET6 : AF_INET, type, 0), one = 1, size = 1 << 20;
	if (inet_pton(is6 ? AF_INET6 : AF_INET, address, is6 ? (void *)&v6.sin6_addr : (void *)&v4.sin_addr) != 1)
		fail(address);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
	if (connect(fd, is6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4, is6 ? sizeof v6 : sizeof v4))
		fail("connect");
	if (type == SOCK_STREAM)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return fd;
}

/* Until the other side has acknowledged everything. */
static unsigned long long stream(int fd, long long end)
{
	unsigned long long bytes = 0;
	struct timespec moment = {.tv_nsec = 20000};
	int left = 1;
	while (now_ns() < end) {
		ssize_t n = send(fd, block, sizeof block, 0);
		if (n < 0)
			fail("send");
		bytes += n;
	}
	while (!ioctl(fd, SIOCOUTQ, &left) && left > 0)
		nanosleep(&moment, NULL);
	return bytes;
}

static unsigned long long ask_count(int fd)
{
	unsigned long long count;
	struct timeval patience = {.tv_usec = 200000};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	for (int i = 0; i < 50; i++) {
		while (recv(fd, &count, sizeof count, MSG_DONTWAIT) > 0)
			;
		send(fd, "?", 1, 0);
		if (recv(fd, &count, sizeof count, 0) == sizeof count)
			return count;
	}
	errno = ETIMEDOUT;
	fail("count");
	return 0;
}

static unsigned long long flood(int fd, long long end, int size)
{
	while (now_ns() < end)
		for (int i = 0; i < 16; i++)
			send(fd, block, size, 0);
	return 0;
}

static unsigned long long round_trips(int fd, long long end)
{
	unsigned long long count = 0;
	char message[64] = {0};
	while (now_ns() < end) {
		if (send(fd, message, sizeof message, 0) != sizeof message)
			fail("send");
		if (recv(fd, message, sizeof message, MSG_WAITALL) != sizeof message)
			fail("recv");
		count++;
	}
	return count;
}

static long long clock_of(pid_t pid)
{
	struct timespec t;
	clockid_t clock;
	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t))
		fail("clock of a process");
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static long long cpu_ns(char **pids)
{
	long long sum = clock_of(0);
	for (; *pids; pids++)
		sum += clock_of(atoi(*pids));
	return sum;
}

static int drive(char **arguments)
{
	int tcp = reach(SOCK_STREAM, arguments[0], 7001), tcp6 = reach(SOCK_STREAM, arguments[1], 7001);
	int answering = reach(SOCK_STREAM, arguments[0], 7002), udp = reach(SOCK_DGRAM, arguments[0], 7003);
	char line[100], what[10];
	int ms, size;
	pin(0);
	while (fgets(line, sizeof line, stdin)) {
		unsigned long long amount = 0, before;
		size = 64;
		if (sscanf(line, "%9s %d %d", what, &ms, &size) < 2 || size < 1 || size > (int)sizeof block)
			return 2;
		before = strcmp(what, "udp") ? 0 : ask_count(udp);
		long long cpu = cpu_ns(arguments + 2), start = now_ns(), end = start + ms * 1000000LL, took = 0;
		if (!strcmp(what, "tcp"))
			amount = stream(tcp, end);
		else if (!strcmp(what, "tcp6"))
			amount = stream(tcp6, end);
		else if (!strcmp(what, "rtt"))
			amount = round_trips(answering, end);
		else {
			flood(udp, end, size);
			took = now_ns() - start;
			amount = ask_count(udp) - before;
		}
		if (!took)
			took = now_ns() - start;
		printf("%llu %lld %lld\n", amount, took, cpu_ns(arguments + 2) - cpu);
		fflush(stdout);
	}
	return 0;
}

int main(int count, char **arguments)
{
	signal(SIGPIPE, SIG_IGN);
	if (count == 2 && !strcmp(arguments[1], "serve"))
		return serve();
	if (count >= 4 && !strcmp(arguments[1], "drive"))
		return drive(arguments + 2);
	fputs("serve | drive ADDRESS4 ADDRESS6 PID...\n", stderr);
	return 2;
}
