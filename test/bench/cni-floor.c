/*
 * The kernel's own price of a pod: the netlink messages that weft sends for ADD and DEL, from a program that does
 * nothing else. For each pod namespace given, in the namespace that it runs in:
 *
 *   ADD   veth pair with its peer in the pod and its master set; alias, hairpin and up; in the pod: up, address, two routes
 *   DEL   off the bridge and into a group; then the group deleted, waited for
 *
 * One line a pod: microseconds of ADD, of cutting off, of the deletion.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static unsigned char buffer[8192];
static size_t used;

static double microseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static void *room(size_t length) {
  void *at = buffer + used;
  memset(at, 0, NLMSG_ALIGN(length));
  used += NLMSG_ALIGN(length);
  return at;
}

static struct nlmsghdr *begin(int type, int flags) {
  struct nlmsghdr *header = room(NLMSG_HDRLEN);
  header->nlmsg_type = type;
  header->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
  return header;
}
static void end(struct nlmsghdr *header) { header->nlmsg_len = buffer + used - (unsigned char *)header; }

static struct rtattr *open_attribute(int type) {
  struct rtattr *attribute = room(RTA_LENGTH(0));
  attribute->rta_type = type;
  return attribute;
}
static void close_attribute(struct rtattr *attribute) { attribute->rta_len = buffer + used - (unsigned char *)attribute; }
static void put(int type, const void *value, size_t length) {
  struct rtattr *attribute = open_attribute(type);
  memcpy(room(length), value, length);
  attribute->rta_len = RTA_LENGTH(length);
}
static void put_u32(int type, unsigned value) { put(type, &value, 4); }
static void put_text(int type, const char *value) { put(type, value, strlen(value) + 1); }

static struct ifinfomsg *link_header(int index, unsigned flags) {
  struct ifinfomsg *link = room(sizeof *link);
  link->ifi_index = index;
  link->ifi_flags = link->ifi_change = flags;
  return link;
}

/* Sends what the buffer holds and reads `count` acknowledgements. */
static void transact(int fd, int count) {
  unsigned char reply[8192];
  if (send(fd, buffer, used, 0) < 0) { perror("send"); exit(1); }
  used = 0;
  while (count > 0) {
    ssize_t length = recv(fd, reply, sizeof reply, 0);
    for (struct nlmsghdr *header = (void *)reply; NLMSG_OK(header, length); header = NLMSG_NEXT(header, length)) {
      struct nlmsgerr *error = NLMSG_DATA(header);
      if (header->nlmsg_type == NLMSG_ERROR && error->error) { errno = -error->error; perror("netlink"); exit(1); }
      count--;
    }
  }
}

static int netlink_socket(void) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), on = 1;
  setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
  return fd;
}

static int index_of(const char *name) {
  struct ifreq request = {0};
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  strcpy(request.ifr_name, name);
  if (ioctl(fd, SIOCGIFINDEX, &request) < 0) { perror(name); exit(1); }
  close(fd);
  return request.ifr_ifindex;
}

static void make_bridge(int fd) {
  struct nlmsghdr *message = begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  link_header(0, IFF_UP);
  put_text(IFLA_IFNAME, "cni0");
  struct rtattr *info = open_attribute(IFLA_LINKINFO);
  put_text(IFLA_INFO_KIND, "bridge");
  close_attribute(info);
  end(message);
  transact(fd, 1);
}

static void add_pair(int fd, const char *name, int netns, int bridge) {
  unsigned mtu = 1450;
  struct nlmsghdr *message = begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  link_header(0, 0);
  put_text(IFLA_IFNAME, name);
  put_u32(IFLA_MTU, mtu);
  put_u32(IFLA_MASTER, bridge);
  put_u32(IFLA_NUM_TX_QUEUES, 1);
  put_u32(IFLA_NUM_RX_QUEUES, 1);
  struct rtattr *info = open_attribute(IFLA_LINKINFO);
  put_text(IFLA_INFO_KIND, "veth");
  struct rtattr *data = open_attribute(IFLA_INFO_DATA), *peer = open_attribute(VETH_INFO_PEER);
  link_header(0, 0);
  put_text(IFLA_IFNAME, "eth0");
  put_u32(IFLA_MTU, mtu);
  put_u32(IFLA_NUM_TX_QUEUES, 1);
  put_u32(IFLA_NUM_RX_QUEUES, 1);
  put_u32(IFLA_NET_NS_FD, netns);
  close_attribute(peer);
  close_attribute(data);
  close_attribute(info);
  end(message);
  transact(fd, 1);
  message = begin(RTM_NEWLINK, 0);
  link_header(index_of(name), 0);
  struct rtattr *families = open_attribute(IFLA_AF_SPEC), *inet6 = open_attribute(AF_INET6);
  unsigned char none = IN6_ADDR_GEN_MODE_NONE;
  put(IFLA_INET6_ADDR_GEN_MODE, &none, 1);
  close_attribute(inet6);
  close_attribute(families);
  end(message);
  message = begin(RTM_NEWLINK, 0);
  link_header(index_of(name), IFF_UP);
  put_text(IFLA_IFALIAS, "weft-pod:floor/eth0 10.66.0.2");
  info = open_attribute(IFLA_LINKINFO);
  put_text(IFLA_INFO_SLAVE_KIND, "bridge");
  data = open_attribute(IFLA_INFO_SLAVE_DATA);
  unsigned char on = 1;
  put(IFLA_BRPORT_MODE, &on, 1);
  close_attribute(data);
  close_attribute(info);
  end(message);
  transact(fd, 2);
}

static void add_route(const char *destination, int length, const char *via, int index) {
  struct in_addr address;
  struct nlmsghdr *message = begin(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
  struct rtmsg *route = room(sizeof *route);
  *route = (struct rtmsg){.rtm_family = AF_INET, .rtm_dst_len = length, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_BOOT, .rtm_type = RTN_UNICAST};
  inet_pton(AF_INET, destination, &address);
  if (length) put(RTA_DST, &address, 4);
  inet_pton(AF_INET, via, &address);
  put(RTA_GATEWAY, &address, 4);
  put_u32(RTA_OIF, index);
  end(message);
}

static void fill_pod(int home, int netns, unsigned host) {
  setns(netns, CLONE_NEWNET);
  int fd = netlink_socket(), index = index_of("eth0");
  struct nlmsghdr *message = begin(RTM_NEWLINK, 0);
  link_header(index, IFF_UP);
  end(message);
  unsigned address = htonl(0x0a420000 + host), broadcast = htonl(0x0a42ffff);
  message = begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
  struct ifaddrmsg *interface = room(sizeof *interface);
  *interface = (struct ifaddrmsg){.ifa_family = AF_INET, .ifa_prefixlen = 16, .ifa_index = index};
  put(IFA_LOCAL, &address, 4);
  put(IFA_ADDRESS, &address, 4);
  put(IFA_BROADCAST, &broadcast, 4);
  end(message);
  add_route("0.0.0.0", 0, "10.66.0.1", index);
  add_route("10.64.0.0", 12, "10.66.0.1", index);
  transact(fd, 4);
  close(fd);
  setns(home, CLONE_NEWNET);
}

static void cut_off(int fd, const char *name) {
  struct nlmsghdr *message = begin(RTM_NEWLINK, 0);
  link_header(index_of(name), 0);
  put_u32(IFLA_MASTER, 0);
  put_u32(IFLA_GROUP, 7777);
  end(message);
  transact(fd, 1);
}

static void delete_group(int fd) {
  struct nlmsghdr *message = begin(RTM_DELLINK, 0);
  link_header(0, 0);
  put_u32(IFLA_GROUP, 7777);
  end(message);
  transact(fd, 1);
}

int main(int count, char **pods) {
  int fd = netlink_socket(), home = open("/proc/self/ns/net", O_RDONLY);
  make_bridge(fd);
  int bridge = index_of("cni0");
  for (int i = 1; i < count; i++) {
    char name[IFNAMSIZ];
    snprintf(name, sizeof name, "veth%08x", i);
    double start = microseconds();
    int netns = open(pods[i], O_RDONLY | O_CLOEXEC);
    add_pair(fd, name, netns, bridge);
    fill_pod(home, netns, i + 1);
    close(netns);
    double added = microseconds();
    cut_off(fd, name);
    double cut = microseconds();
    delete_group(fd);
    printf("%.0f %.0f %.0f\n", added - start, cut - added, microseconds() - cut);
  }
  return 0;
}
