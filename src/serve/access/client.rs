//! Where a request comes from: address, scheme and host, with the headers of trusted proxies.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

/// The other end of a connection: an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Whether the connection is by TLS.
    pub tls: bool,
}

impl Peer {
    /// The peer with this address.
    pub fn new(address: SocketAddr, tls: bool) -> Self {
        Peer {
            address: address.ip().to_canonical(),
            tls,
        }
    }
}

/// Where a request comes from: an extension of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Address of the client, behind trusted proxies.
    pub address: IpAddr,
    /// Whether the client uses https.
    pub https: bool,
    /// Host and port that the client asked for; empty if it named none.
    pub host: String,
}

impl Default for Client {
    fn default() -> Self {
        Client {
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            https: false,
            host: String::new(),
        }
    }
}

/// The proxies whose `X-Forwarded-For`, `-Proto` and `-Host` are believed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Parses addresses and networks, such as `127.0.0.1` and `10.0.0.0/8`.
    ///
    /// # Errors
    /// The first text that is neither.
    pub fn parse(all: &[String]) -> Result<Self, String> {
        let one = |text: &String| {
            let address = text.parse::<IpAddr>().map(IpNet::from);
            address.or_else(|_| text.parse::<IpNet>()).map_err(|_| {
                format!(
                    "serve.trusted_proxies: \"{text}\" is not an address such as 127.0.0.1 or a \
                     network such as 10.0.0.0/8"
                )
            })
        };
        all.iter()
            .map(one)
            .collect::<Result<_, _>>()
            .map(TrustedProxies)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client of a request with these headers. The headers of a peer that is not trusted are
    /// ignored.
    pub fn client(&self, peer: Peer, headers: &HeaderMap) -> Client {
        let host = text(headers, &header::HOST).unwrap_or_default();
        let mut client = Client {
            address: peer.address,
            https: peer.tls,
            host: host.into(),
        };
        if !self.trusts(peer.address) {
            return client;
        }
        // Each proxy appends the address from which it was reached, so the list is believed from
        // its end, as long as the addresses are those of trusted proxies.
        for entry in values(headers, "x-forwarded-for").iter().rev() {
            let Some(address) = address_of(entry) else {
                break;
            };
            client.address = address.to_canonical();
            if !self.trusts(address) {
                break;
            }
        }
        if let Some(proto) = values(headers, "x-forwarded-proto").last() {
            client.https = proto.eq_ignore_ascii_case("https");
        }
        if let Some(host) = values(headers, "x-forwarded-host").last() {
            client.host = (*host).into();
        }
        client
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// The comma-separated values of a header that may be repeated.
fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|value| !value.is_empty())
        .collect()
}

/// The address of an entry: an address, `address:port` or `[v6]:port`.
fn address_of(entry: &str) -> Option<IpAddr> {
    let plain = entry.trim_start_matches('[').trim_end_matches(']');
    plain
        .parse()
        .or_else(|_| entry.parse::<SocketAddr>().map(|a| a.ip()))
        .ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in all {
            map.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        map
    }

    fn peer(address: &str) -> Peer {
        Peer {
            address: address.parse().expect("an address"),
            tls: false,
        }
    }

    fn proxies() -> TrustedProxies {
        let all = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"].map(String::from);
        TrustedProxies::parse(&all).expect("valid")
    }

    #[test]
    fn forwarded_headers_are_believed_from_trusted_proxies_only() {
        let forwarded = [
            ("host", "127.0.0.1:8090"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "gate.example"),
        ];
        let client = proxies().client(peer("127.0.0.1"), &headers(&forwarded));
        assert_eq!(client.address, peer("203.0.113.9").address);
        assert!(client.https && client.host == "gate.example");
        let client = proxies().client(peer("192.168.1.2"), &headers(&forwarded));
        assert_eq!(client.address, peer("192.168.1.2").address);
        assert!(!client.https && client.host == "127.0.0.1:8090");
        let none = TrustedProxies::default().client(peer("127.0.0.1"), &headers(&forwarded));
        assert_eq!(none.address, peer("127.0.0.1").address);
    }

    #[test]
    fn the_list_of_addresses_is_believed_from_its_end() {
        let client = |list: &[&str]| {
            let all: Vec<_> = list.iter().map(|v| ("x-forwarded-for", *v)).collect();
            let client = proxies().client(peer("10.1.2.3"), &headers(&all));
            client.address.to_string()
        };
        assert_eq!(client(&["1.2.3.4, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(client(&["1.2.3.4", "203.0.113.9, 10.9.9.9"]), "203.0.113.9");
        assert_eq!(client(&["10.0.0.1, 10.0.0.2"]), "10.0.0.1");
        assert_eq!(client(&["203.0.113.9, nonsense, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client(&["203.0.113.9:4711"]), "203.0.113.9");
        assert_eq!(client(&["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(client(&["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(client(&["::ffff:203.0.113.9"]), "203.0.113.9");
        assert_eq!(client(&[""]), "10.1.2.3");
    }

    #[test]
    fn a_mapped_address_is_recognised() {
        let mapped = Peer::new("[::ffff:10.1.2.3]:80".parse().expect("an address"), false);
        let client = proxies().client(mapped, &headers(&[("x-forwarded-for", "203.0.113.9")]));
        assert_eq!(client.address.to_string(), "203.0.113.9");
        assert!(TrustedProxies::parse(&["localhost".into()]).is_err());
        assert!(TrustedProxies::parse(&["10.0.0.0/99".into()]).is_err());
    }

    proptest! {
        /// Whatever a client sends, a proxy that appends its address decides.
        #[test]
        fn a_client_cannot_choose_its_address(spoofed in "[ -~]{0,40}") {
            let list = format!("{spoofed}, 203.0.113.9");
            let client = proxies().client(peer("10.1.2.3"), &headers(&[("x-forwarded-for", &list)]));
            prop_assert_eq!(client.address.to_string(), "203.0.113.9");
        }
    }
}
