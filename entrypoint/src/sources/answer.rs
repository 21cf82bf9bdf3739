//! What a source says of its guest before there are volumes: disks and NICs, in virt-v2v's order. Pure.

use crate::failure::{Class, Failure, TERMINATION_MESSAGE_BYTES};
use serde::Serialize;

/// A guest at its source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// As the source calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What its firmware tells it, where the source knows; licences hang on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Its NICs, as far as virt-v2v takes them over.
    pub nics: Vec<Nic>,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// As the guest sees it.
    pub bytes: u64,
    /// Its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nic {
    /// `00:16:3e:00:00:01`, where the source has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Name of its network or bridge, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

impl Nic {
    /// From what a source has written, which may be anything.
    pub fn of(mac: Option<&str>, network: Option<&str>) -> Self {
        let mac = mac.map(str::trim).filter(|mac| is_mac(mac)).map(str::to_ascii_lowercase);
        let network = network.map(str::trim).filter(|name| !name.is_empty());
        Self { mac, network: network.map(str::to_owned) }
    }
}

/// One that a NIC can have; all zeros stand for none.
fn is_mac(text: &str) -> bool {
    let pair = |pair: &str| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
    text.split(':').count() == 6 && text.split(':').all(pair) && text != "00:00:00:00:00:00"
}

/// A UUID in its usual form, in small letters.
pub fn uuid(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let parts: Vec<&str> = text.split('-').collect();
    let is_one = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|b| b.is_ascii_hexdigit()));
    is_one.then_some(text)
}

impl Answer {
    /// For people and programs.
    pub fn document(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The one line for `/dev/termination-log`. The names of files are left out where it would be too long.
    pub fn line(&self) -> Result<String, Failure> {
        let bare = Self {
            disks: self.disks.iter().map(|d| Disk { bytes: d.bytes, name: None }).collect(),
            ..self.clone()
        };
        let nameless = Self { name: None, ..bare.clone() };
        [self, &bare, &nameless]
            .into_iter()
            .filter_map(|answer| serde_json::to_string(answer).ok())
            .find(|line| line.len() <= TERMINATION_MESSAGE_BYTES)
            .ok_or_else(|| {
                let (disks, nics) = (self.disks.len(), self.nics.len());
                let message = format!(
                    "the guest has {disks} disks and {nics} NICs, which are more than a termination message of \
                     {TERMINATION_MESSAGE_BYTES} bytes has room for"
                );
                Failure::new(Class::Config, message)
                    .advise("convert it without a controller, with `v2v-pod convert`")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn answer(disks: usize, nics: usize, name: &str) -> Answer {
        Answer {
            name: Some(name.to_owned()),
            uuid: None,
            disks: (0..disks)
                .map(|n| Disk { bytes: 1 << 40, name: Some(format!("{name}-{n}.vmdk")) })
                .collect(),
            nics: vec![Nic::of(Some("00:16:3E:00:00:01"), Some("LAN")); nics],
        }
    }

    fn line(answer: &Answer) -> Value {
        serde_json::from_str(&answer.line().unwrap()).unwrap()
    }

    #[test]
    fn a_small_guest_is_told_whole() {
        assert_eq!(
            line(&answer(1, 1, "web")),
            json!({
                "name": "web",
                "disks": [{ "bytes": 1_u64 << 40, "name": "web-0.vmdk" }],
                "nics": [{ "mac": "00:16:3e:00:00:01", "network": "LAN" }],
            })
        );
        let nics = vec![Nic::of(None, None)];
        let bare = Answer { name: None, uuid: None, disks: vec![], nics };
        assert_eq!(line(&bare), json!({ "disks": [], "nics": [{}] }));
    }

    #[test]
    fn names_go_before_the_line_is_too_long() {
        let many = line(&answer(60, 4, &"x".repeat(100)));
        assert_eq!(many["disks"][59], json!({ "bytes": 1_u64 << 40 }));
        assert_eq!(many["name"].as_str().map(str::len), Some(100));
        let named = line(&answer(60, 4, &"x".repeat(4000)));
        assert_eq!((&named["name"], &named["nics"][3]["network"]), (&Value::Null, &json!("LAN")));
        let failure = answer(400, 2, "web").line().unwrap_err();
        assert!(failure.class == Class::Config && failure.message.contains("400 disks"));
        assert!(answer(400, 2, "web").document().contains("web-399.vmdk"));
    }

    #[test]
    fn what_is_no_address_is_none() {
        for mac in ["", "auto", "00:00:00:00:00:00", "00:16:3e:00:00", "00:16:3e:00:00:0g", "7"] {
            assert_eq!(Nic::of(Some(mac), Some(" ")), Nic { mac: None, network: None }, "{mac}");
        }
    }

    #[test]
    fn a_uuid_has_one_form() {
        let known = "6A0A7A2E-0000-4000-8000-00000000000A";
        assert_eq!(uuid(known), Some(known.to_lowercase()));
        for bad in ["", "6a0a7a2e00004000800000000000000a", &known[1..], &known.replace('A', "x")] {
            assert_eq!(uuid(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_line_is_short_and_one(name in "\\PC{0,3000}", disks in 0_usize..300, nics in 0_usize..90) {
            if let Ok(line) = answer(disks, nics, &format!("{name}\n")).line() {
                prop_assert!(line.len() <= TERMINATION_MESSAGE_BYTES && !line.contains('\n'));
                let value: Value = serde_json::from_str(&line).unwrap();
                prop_assert_eq!(value["disks"].as_array().unwrap().len(), disks);
                prop_assert_eq!(value["nics"].as_array().unwrap().len(), nics);
            }
        }
    }
}
