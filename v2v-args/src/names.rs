//! Names that guests get in Kubernetes, and those that virt-v2v gives to output disks; the links have to match them exactly
//! (virt-v2v `output/output.ml`: `sanitize_slash name ^ "-sd" ^ drive_name i`).

/// `a` … `z`, `aa` …: the letters of disk `index`, counted from 0.
pub fn drive_name(index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index;
    loop {
        // `rest % 26` fits a u8.
        letters.push(b'a' + u8::try_from(rest % 26).unwrap_or(0));
        if rest < 26 {
            break;
        }
        rest = rest / 26 - 1;
    }
    letters.iter().rev().map(|b| char::from(*b)).collect()
}

/// The guest's name as a file name: `/` becomes `_`, as virt-v2v does since 2.12.
pub fn sanitize_slash(name: &str) -> String {
    name.replace('/', "_")
}

/// File name of output disk `index` of guest `name`, e.g. `web-sda`.
pub fn disk_link_name(name: &str, index: usize) -> String {
    format!("{}-sd{}", sanitize_slash(name), drive_name(index))
}

/// The longest DNS label.
const LABEL: usize = 63;

/// `name` as an RFC 1123 label: lower case, anything else than `a-z0-9` a dash (one for a run of
/// them), 63 characters at most. A valid label stays as it is; `None` if nothing is left.
pub fn rfc1123(name: &str) -> Option<String> {
    let mut label = String::new();
    for c in name.chars().map(|c| c.to_ascii_lowercase()) {
        match c {
            'a'..='z' | '0'..='9' => label.push(c),
            '-' if !label.is_empty() => label.push(c),
            _ if !label.is_empty() && !label.ends_with('-') => label.push('-'),
            _ => {}
        }
    }
    label.truncate(LABEL);
    label.truncate(label.trim_end_matches('-').len());
    (!label.is_empty()).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn letters_follow_the_kernel() {
        let known = [
            (0, "a"),
            (25, "z"),
            (26, "aa"),
            (51, "az"),
            (52, "ba"),
            (59, "bh"),
            (701, "zz"),
            (702, "aaa"),
        ];
        for (index, letters) in known {
            assert_eq!(drive_name(index), letters);
        }
    }

    #[test]
    fn names_of_guests_become_labels() {
        for (name, expected) in [
            ("web01", Some("web01")),
            ("Web Server_01.example.com", Some("web-server-01-example-com")),
            ("-x-", Some("x")),
            ("сервер", None),
        ] {
            assert_eq!(rfc1123(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn a_slash_in_the_name_stays_in_the_folder() {
        assert_eq!(disk_link_name("a/b", 1), "a_b-sdb");
        assert_eq!(disk_link_name("", 0), "-sda");
    }

    proptest! {
        #[test]
        fn letters_are_a_bijection(index in 0usize..1_000_000) {
            let back = drive_name(index).bytes().fold(0usize, |n, b| n * 26 + usize::from(b - b'a') + 1) - 1;
            prop_assert_eq!(back, index);
        }
    }
}
