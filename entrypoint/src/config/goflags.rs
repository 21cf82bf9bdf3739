//! The command line of pod mode, in the syntax of Go's `flag` package, which Forklift's pod uses:
//! `-name value`, `-name=value`, one or two dashes, booleans alone or with `=`.

use super::ConfigError;
use super::settings::{Kind, SETTINGS, parse_bool};
use std::collections::BTreeMap;

/// Values by flag name; the last one wins.
pub fn parse(args: &[String]) -> Result<BTreeMap<&'static str, String>, ConfigError> {
    let mut values = BTreeMap::new();
    let mut rest = args.iter();
    while let Some(word) = rest.next() {
        let Some(body) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            return Err(ConfigError::UnexpectedArgument(word.clone()));
        };
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let setting = SETTINGS
            .iter()
            .find(|s| !s.flag.is_empty() && s.flag == name)
            .ok_or_else(|| ConfigError::UnknownFlag(word.clone()))?;
        let value = match (setting.kind, inline) {
            (Kind::Bool, None) => "true".to_owned(),
            (Kind::Bool, Some(value)) if parse_bool(&value).is_none() => {
                return Err(ConfigError::BadBooleanFlag { flag: name.to_owned(), value });
            }
            (_, Some(value)) => value,
            (Kind::Text, None) => {
                rest.next().cloned().ok_or_else(|| ConfigError::FlagWithoutValue(word.clone()))?
            }
        };
        values.insert(setting.flag, value);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(args: &[&str]) -> Result<BTreeMap<&'static str, String>, ConfigError> {
        parse(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn every_way_of_writing_a_flag() {
        let values =
            parsed(&["-vm-name", "a b", "--source=ova", "-in-place", "-overlay-enabled=F"])
                .unwrap();
        assert_eq!(values["vm-name"], "a b");
        assert_eq!(values["source"], "ova");
        assert_eq!(values["in-place"], "true");
        assert_eq!(values["overlay-enabled"], "F");
    }

    #[test]
    fn mistakes_name_the_word() {
        assert_eq!(parsed(&["-nope"]), Err(ConfigError::UnknownFlag("-nope".into())));
        assert_eq!(parsed(&["-vm-name"]), Err(ConfigError::FlagWithoutValue("-vm-name".into())));
        assert_eq!(parsed(&["x"]), Err(ConfigError::UnexpectedArgument("x".into())));
        assert!(parsed(&["-in-place=maybe"]).is_err_and(|e| e.is_usage()));
    }

    proptest! {
        #[test]
        fn never_panics(args in prop::collection::vec("-{0,3}[a-z=-]{0,12}", 0..6)) {
            let _ = parse(&args);
        }
    }
}
