//! Rate limits on logins, per address and per name.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::serve::access::rate_limit::RateLimit;

/// Failed logins of an address at once, and the time for one more. Users behind one router share
/// an address.
const ADDRESS: (u32, Duration) = (20, Duration::from_secs(6));
/// Failed logins of a name at once, and the time for one more.
const NAME: (u32, Duration) = (10, Duration::from_secs(30));
/// Largest number of addresses, and of names, that are remembered.
const KEYS: usize = 4096;

/// Limits failed logins; successful ones do not count.
pub(super) struct LoginLimits {
    by_address: Mutex<RateLimit<IpAddr>>,
    by_name: Mutex<RateLimit<String>>,
}

impl Default for LoginLimits {
    fn default() -> Self {
        LoginLimits {
            by_address: Mutex::new(RateLimit::new(ADDRESS.0, ADDRESS.1, KEYS)),
            by_name: Mutex::new(RateLimit::new(NAME.0, NAME.1, KEYS)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of an address that one client cannot choose: of IPv6 the first 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let prefix = v6.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(prefix))
        }
        v4 => v4,
    }
}

impl LoginLimits {
    /// Counts an attempt.
    ///
    /// # Errors
    /// The time after which the next attempt is allowed.
    pub fn take(&self, address: IpAddr, name: &str, now: Instant) -> Result<(), Duration> {
        let address = network(address);
        lock(&self.by_address).take(&address, now)?;
        lock(&self.by_name)
            .take(&name.to_string(), now)
            .inspect_err(|_| lock(&self.by_address).give_back(&address))
    }

    /// Takes back an attempt that was successful.
    pub fn give_back(&self, address: IpAddr, name: &str) {
        lock(&self.by_address).give_back(&network(address));
        lock(&self.by_name).give_back(&name.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_limited_and_successes_are_not_counted() {
        let (limits, now) = (LoginLimits::default(), Instant::now());
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        for n in 0..10 {
            assert_eq!(limits.take(address(n), "anna", now), Ok(()));
        }
        assert_eq!(limits.take(address(99), "anna", now), Err(NAME.1));
        for n in 0..20 {
            assert_eq!(limits.take(address(99), &format!("user{n}"), now), Ok(()));
        }
        assert_eq!(limits.take(address(99), "berta", now), Err(ADDRESS.1));
        for _ in 0..100 {
            assert_eq!(limits.take(address(50), "carl", now), Ok(()));
            limits.give_back(address(50), "carl");
        }
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_count_as_one() {
        let (limits, now) = (LoginLimits::default(), Instant::now());
        for n in 0..20 {
            let address = format!("2001:db8:1:2::{n:x}").parse().expect("an address");
            assert_eq!(limits.take(address, &format!("user{n}"), now), Ok(()));
        }
        let another = "2001:db8:1:2:aaaa::1".parse().expect("an address");
        assert!(limits.take(another, "anna", now).is_err());
        let other = "2001:db8:1:3::1".parse().expect("an address");
        assert!(limits.take(other, "anna", now).is_ok());
    }
}
