//! The OVA of `convert -i ova`: a path or a URL, from flags.

use super::source::single;
use crate::cli::{ConvertArgs, InputKind};
use crate::failure::{Class, Failure};
use crate::ova::{self, Login, Place, Wanted};
use crate::preflight::Report;
use crate::toolbox::Toolbox;
use std::path::Path;

/// Opens it, when the source is one; problems go into the report.
pub async fn check(
    args: &ConvertArgs,
    toolbox: &Toolbox,
    run_dir: &Path,
    report: &mut Report,
) -> Option<ova::Source> {
    if args.input != InputKind::Ova {
        return None;
    }
    let source = match wanted(args) {
        Ok(wanted) => {
            let login = Login {
                user: None,
                password_file: args.password_file.clone(),
                ca: args.cacert.clone(),
            };
            ova::open(&wanted, &login, toolbox, run_dir, report).await
        }
        Err(failure) => Err(failure),
    };
    source.map_err(|failure| report.problem("source", failure)).ok()
}

fn wanted(args: &ConvertArgs) -> Result<Wanted, Failure> {
    let place: Place = single(args)?.parse().map_err(|e: ova::PlaceError| {
        Failure::new(Class::Config, datapath::error_chain(&e))
            .advise("name a file, a folder, or an http:// or https:// URL")
    })?;
    let place = match place {
        Place::Local(path) => Place::Local(super::absolute(&path)?),
        url @ Place::Url(_) => url,
    };
    Ok(Wanted { place, verify: args.ova_verify, trust: args.trust, thumbprint: args.thumbprint })
}
