//! Where inner packets go and where they may come from. A table is built once and never changed: the control thread puts a
//! new one in place and the packet threads pick it up between two batches, without a lock in between.

use crate::packet::{family_of, ip_of, number_of, Family, Header};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use weft_sys::SocketAddress;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    is_v6: bool,
    base: u128,
    length: u8,
}

impl Prefix {
    fn family(&self) -> Family {
        if self.is_v6 {
            Family::V6
        } else {
            Family::V4
        }
    }

    pub fn contains(&self, family: Family, address: u128) -> bool {
        self.family() == family && address & mask(family, self.length) == self.base
    }

    /// The first address of the block: the one that flannel gives to a node's tunnel device.
    pub fn first(&self) -> IpAddr {
        ip_of(self.family(), self.base)
    }
}

fn mask(family: Family, length: u8) -> u128 {
    let bits = if family == Family::V4 { 32 } else { 128 };
    let all = u128::MAX >> (128 - bits);
    all & !all.checked_shr(u32::from(length)).unwrap_or(0)
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Prefix, String> {
        let wrong = || format!("{text} is not a network such as 10.244.1.0/24");
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let ip: IpAddr = address.parse().map_err(|_| wrong())?;
        let length: u8 = length.parse().map_err(|_| wrong())?;
        let (family, base) = (family_of(ip), number_of(ip));
        if length > if ip.is_ipv4() { 32 } else { 128 } || base & !mask(family, length) != 0 {
            return Err(wrong());
        }
        Ok(Prefix { is_v6: ip.is_ipv6(), base, length })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.first(), self.length)
    }
}

pub struct Peer {
    pub subnet: Prefix,
    pub remote: SocketAddr,
    pub address: SocketAddress,
}

/// Why an inner packet from outside is not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The outer source is no peer.
    Stranger,
    /// The inner source is not in the sender's networks.
    ForgedSource,
    /// The inner destination is not here.
    NotForUs,
}

/// The definition of a table: what the control socket sets and lists.
#[derive(Clone, Default)]
pub struct Definition {
    pub subnets: Vec<Prefix>,
    pub peers: BTreeMap<Prefix, SocketAddr>,
}

pub struct Table {
    local: IpAddr,
    subnets: Vec<Prefix>,
    peers: Vec<Peer>,
    /// Longest prefixes first, a map each, for each family.
    by_length: [Vec<(u8, HashMap<u128, u32>)>; 2],
    remotes: HashSet<SocketAddr>,
}

impl Table {
    pub fn new(definition: &Definition, local: IpAddr) -> Table {
        let mut lengths: [BTreeMap<u8, HashMap<u128, u32>>; 2] = Default::default();
        let mut peers = Vec::with_capacity(definition.peers.len());
        for (subnet, remote) in &definition.peers {
            let index = peers.len() as u32;
            lengths[usize::from(subnet.is_v6)].entry(subnet.length).or_default().insert(subnet.base, index);
            peers.push(Peer { subnet: *subnet, remote: *remote, address: SocketAddress::new(*remote) });
        }
        let by_length = lengths.map(|family| family.into_iter().rev().collect());
        let remotes = definition.peers.values().copied().collect();
        Table { local, subnets: definition.subnets.clone(), peers, by_length, remotes }
    }

    pub fn peer(&self, index: u32) -> &Peer {
        &self.peers[index as usize]
    }

    /// The peer whose network holds the address, the longest prefix winning.
    pub fn find(&self, family: Family, address: u128) -> Option<u32> {
        let by_length = &self.by_length[usize::from(family == Family::V6)];
        by_length.iter().find_map(|(length, map)| map.get(&(address & mask(family, *length))).copied())
    }

    pub fn knows(&self, remote: &SocketAddr) -> bool {
        self.remotes.contains(remote)
    }

    /// Whether a packet that `remote` sent may come in. A node may also speak with its own address.
    pub fn admit(&self, remote: &SocketAddr, header: &Header) -> Result<(), Refusal> {
        if !self.knows(remote) {
            return Err(Refusal::Stranger);
        }
        let is = |ip: IpAddr, number: u128| family_of(ip) == header.family && number_of(ip) == number;
        let sender = self.find(header.family, header.source).map(|index| &self.peer(index).remote);
        if sender != Some(remote) && !is(remote.ip(), header.source) {
            return Err(Refusal::ForgedSource);
        }
        let is_here = if self.subnets.is_empty() {
            // Not told what is here: then at least it must not go straight out again.
            self.find(header.family, header.destination).is_none()
        } else {
            self.subnets.iter().any(|subnet| subnet.contains(header.family, header.destination))
        };
        if is_here || is(self.local, header.destination) {
            Ok(())
        } else {
            Err(Refusal::NotForUs)
        }
    }

    /// The address that this node's own ICMP errors to peers come from.
    pub fn own_address(&self, family: Family) -> Option<IpAddr> {
        self.subnets.iter().find(|subnet| subnet.family() == family).map(Prefix::first)
    }
}

/// The table in force, with a number that tells when it was replaced.
pub struct TableSlot {
    generation: AtomicU64,
    table: Mutex<Arc<Table>>,
}

/// One thread's view of a slot.
pub struct TableReader<'a> {
    slot: &'a TableSlot,
    generation: u64,
    table: Arc<Table>,
}

impl TableSlot {
    pub fn new(table: Table) -> TableSlot {
        TableSlot { generation: AtomicU64::new(0), table: Mutex::new(Arc::new(table)) }
    }

    pub fn replace(&self, table: Table) {
        *self.lock() = Arc::new(table);
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub fn reader(&self) -> TableReader<'_> {
        let generation = self.generation.load(Ordering::Acquire);
        TableReader { slot: self, generation, table: self.lock().clone() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Table>> {
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl TableReader<'_> {
    /// The table in force now. Takes a lock only when it has been replaced.
    pub fn current(&mut self) -> &Arc<Table> {
        let generation = self.slot.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.table = self.slot.lock().clone();
            self.generation = generation;
        }
        &self.table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::parse;
    use crate::packet::testing::udp;

    fn definition(subnets: &[&str], peers: &[(&str, &str)]) -> Definition {
        Definition {
            subnets: subnets.iter().map(|text| text.parse().unwrap()).collect(),
            peers: peers.iter().map(|(net, remote)| (net.parse().unwrap(), remote.parse().unwrap())).collect(),
        }
    }

    fn found(table: &Table, text: &str) -> Option<String> {
        let ip: IpAddr = text.parse().unwrap();
        table.find(family_of(ip), number_of(ip)).map(|index| table.peer(index).remote.ip().to_string())
    }

    #[test]
    fn the_longest_prefix_wins() {
        let peers = [
            ("10.244.0.0/16", "192.0.2.1:8285"),
            ("10.244.1.0/24", "192.0.2.2:8285"),
            ("10.244.1.7/32", "192.0.2.3:8285"),
            ("fd00::/16", "192.0.2.4:8285"),
            ("::/0", "192.0.2.5:8285"),
        ];
        let table = Table::new(&definition(&[], &peers), "192.0.2.9".parse().unwrap());
        assert_eq!(found(&table, "10.244.1.7").unwrap(), "192.0.2.3");
        assert_eq!(found(&table, "10.244.1.8").unwrap(), "192.0.2.2");
        assert_eq!(found(&table, "10.244.2.8").unwrap(), "192.0.2.1");
        assert_eq!(found(&table, "10.245.2.8"), None);
        assert_eq!(found(&table, "fd00:1::1").unwrap(), "192.0.2.4");
        assert_eq!(found(&table, "::1").unwrap(), "192.0.2.5");
    }

    #[test]
    fn refuses_what_is_forged() {
        let peers = [("10.244.1.0/24", "192.0.2.1:8285"), ("10.244.3.0/24", "192.0.2.3:8285")];
        let local: IpAddr = "192.0.2.2".parse().unwrap();
        // From 10.244.1.2 to 10.244.2.3.
        let header = parse(&udp(false, 1, b"x")).unwrap();
        let from = |table: &Table, remote: &str| table.admit(&remote.parse().unwrap(), &header);
        let table = Table::new(&definition(&["10.244.2.0/24"], &peers), local);
        assert_eq!(from(&table, "192.0.2.1:8285"), Ok(()));
        assert_eq!(from(&table, "192.0.2.1:9999"), Err(Refusal::Stranger));
        assert_eq!(from(&table, "192.0.2.8:8285"), Err(Refusal::Stranger));
        assert_eq!(from(&table, "192.0.2.3:8285"), Err(Refusal::ForgedSource));
        let elsewhere = Table::new(&definition(&["10.244.9.0/24"], &peers), local);
        assert_eq!(from(&elsewhere, "192.0.2.1:8285"), Err(Refusal::NotForUs));
        let untold = Table::new(&definition(&[], &peers), local);
        assert_eq!(from(&untold, "192.0.2.1:8285"), Ok(()));
        let out_again = [("10.244.1.0/24", "192.0.2.1:8285"), ("10.244.2.0/24", "192.0.2.3:8285")];
        let untold = Table::new(&definition(&[], &out_again), local);
        assert_eq!(from(&untold, "192.0.2.1:8285"), Err(Refusal::NotForUs));
    }

    #[test]
    fn prefixes_are_strict() {
        assert_eq!("10.244.1.0/24".parse::<Prefix>().unwrap().to_string(), "10.244.1.0/24");
        assert_eq!("0.0.0.0/0".parse::<Prefix>().unwrap().to_string(), "0.0.0.0/0");
        assert_eq!("fd00::/128".parse::<Prefix>().unwrap().to_string(), "fd00::/128");
        for bad in ["10.244.1.1/24", "10.244.1.0", "10.244.1.0/33", "x/1", "10.0.0.0/-1", "fd00::1/64", ""] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn readers_see_a_replacement() {
        let local: IpAddr = "192.0.2.2".parse().unwrap();
        let slot = TableSlot::new(Table::new(&definition(&[], &[]), local));
        let mut reader = slot.reader();
        assert_eq!(found(reader.current(), "10.244.1.1"), None);
        slot.replace(Table::new(&definition(&[], &[("10.244.1.0/24", "192.0.2.1:1")]), local));
        assert!(found(reader.current(), "10.244.1.1").is_some());
    }
}
