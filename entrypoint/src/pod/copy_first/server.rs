//! The disks of a VM at a vCenter or an ESXi host: which ones, how nbdkit serves them, and what tells that they are as
//! they were.

use super::{Identity, Origin, Readable};
use crate::classify::Evidence;
use crate::config::pod::VSphere;
use crate::copy_first::identity::{Head, of_vsphere};
use crate::failure::{Class, Failure};
use crate::guest::domain_xml::disk_files;
use crate::pod::Pod;
use crate::secret;
use crate::serve_disks::Way;
use crate::serve_disks::children::{Line, ServerLine};
use crate::serve_disks::lines::{Files, Server, Use, folder_url, nbdkit};
use crate::serve_disks::secrets::{Login, user_of, write_secrets};
use crate::serve_disks::vm::{self, Vm};
use crate::tool_run;
use crate::trust::Endpoint;
use crate::vsphere::snapshots;
use crate::vsphere::transport::Transport;
use std::time::Duration;

/// A vCenter that is asked for a file may ask the host.
const LIMIT: Duration = Duration::from_secs(120);

/// A VM at its server.
#[derive(Debug)]
pub struct AtServer {
    server: Server,
    vm: Vm,
    way: Way,
}

impl Pod<'_> {
    /// Finds the VM's disks, and leaves the login where the servers will find it.
    pub(super) async fn at_server(
        &self,
        vsphere: &VSphere,
        files: &Files,
    ) -> Result<AtServer, Failure> {
        let name = &self.config.vm_name;
        let known = self.ready.server.as_ref().filter(|s| s.access.is_vsphere());
        let known = known.ok_or_else(|| {
            let message = "disks are copied first only from a vCenter or an ESXi host";
            Failure::new(Class::Config, message)
                .advise("give a URL like vpx://… or esx://…, or leave V2V_copyFirst out")
        })?;
        let xml = self.fetch_domain(vsphere).await?;
        let vm = vm::parse(&xml, name)?;
        // The conversion counts the disks in its own way.
        let count = disk_files(&xml).map_or(0, |all| all.len());
        if count != vm.disks.len() {
            let message = format!(
                "the VM {name} has {count} disks, of which {} can be read as files",
                vm.disks.len()
            );
            return Err(Failure::new(Class::Config, message)
                .advise("take devices of the host from the VM, or leave V2V_copyFirst out"));
        }
        let endpoint = endpoint(&known.access.url)?;
        let paths = &self.config.paths;
        let user = match user_of(&known.access.url) {
            Some(user) => user,
            None => secret::read(&paths.access_key, "user name")?,
        };
        let login = Login::new(user, &paths.secret_key)?;
        let (way, vddk) = match &known.transport {
            Transport::Vddk(vddk) => (Way::Vddk, Some(vddk)),
            Transport::Https(_) => (Way::Https, None),
        };
        let server = Server {
            host: endpoint.host.to_string(),
            port: endpoint.port,
            user: login.user.clone(),
            thumbprint: known.access.thumbprint.clone(),
            insecure: known.access.trust == "insecure",
            libdir: paths.vddk_libdir.clone(),
            vddk_transports: vddk.and_then(|v| v.transports).map(str::to_owned),
            vddk_config: paths.vddk_config.exists().then(|| paths.vddk_config.clone()),
            cookie_renew: vsphere.cookie_renew,
        };
        write_secrets(files, &server, &vm, &vm.disks, &login)?;
        Ok(AtServer { server, vm, way })
    }

    /// The disks, with what they are at this moment.
    pub(super) async fn disks_at_server(
        &self,
        at: &AtServer,
        files: &Files,
    ) -> Result<Vec<Origin>, Failure> {
        let toolbox = &self.runner.toolbox;
        let program = toolbox.find("nbdkit").ok_or_else(|| tool_run::missing("nbdkit"))?;
        let mut origins = Vec::new();
        for (number, disk) in at.vm.disks.iter().enumerate() {
            let place = (files, number);
            let args = nbdkit(at.way, &at.server, &at.vm, disk, place, Use::Copy);
            let args = args.ok_or_else(|| no_name(disk))?;
            let line = Line { program: program.clone(), args };
            let served = ServerLine { line, pidfile: files.pidfile(number) };
            let from = Readable::Server(served, files.socket(number));
            origins.push(Origin { from, identity: self.version(at, files, disk).await? });
        }
        Ok(origins)
    }

    /// Asks the server for the headers of the disk's file.
    async fn version(&self, at: &AtServer, files: &Files, disk: &str) -> Result<Identity, Failure> {
        let url = folder_url(&at.server, &at.vm.datacenter, disk).ok_or_else(|| no_name(disk))?;
        let login = files.curl();
        let login = login.to_string_lossy();
        let mut args = vec!["-q", "--head", "--silent", "--show-error", "--max-time", "100"];
        args.extend(at.server.insecure.then_some("--insecure"));
        args.extend(["-K", &login, &url]);
        let toolbox = &self.runner.toolbox;
        if toolbox.find("curl").is_none() {
            return Err(tool_run::missing("curl"));
        }
        let Some((_, said)) = toolbox.ask("curl", &args, LIMIT).await else {
            let message = format!("the server does not answer the question for {disk}");
            return Err(Failure::new(Class::Network, message));
        };
        let head = Head::parse(&said);
        if let Some(version) = head.version() {
            let server = format!("{}:{}", at.server.host, at.server.port);
            return Ok(Identity::Told(of_vsphere(&server, &at.vm.uuid, disk, &version)));
        }
        judge(at.way, disk, &head, &said)
    }
}

/// What an answer without a version means. A server that is only away for a moment must not cost what is copied already.
fn judge(way: Way, disk: &str, head: &Head, said: &str) -> Result<Identity, Failure> {
    let status = head.status;
    match (status, way) {
        (0, _) => {
            let mut evidence = Evidence::default();
            said.lines().for_each(|line| evidence.line("curl", line));
            let failure = evidence.failure("curl", "no answer");
            let class = match failure.class {
                Class::Conversion => Class::Network,
                class => class,
            };
            let message = format!("the server was asked for {disk}: {}", failure.message);
            Err(Failure::new(class, message))
        }
        (500.., _) => Err(Failure::new(
            Class::Network,
            format!("the server, asked for {disk}, answers with {status}"),
        )),
        (404, Way::Https) if vm::is_of_snapshot(disk) => Err(snapshots::failure(disk)),
        (404, Way::Https) => Err(Failure::new(
            Class::NotFound,
            format!("the server does not serve {disk} over HTTPS (404)"),
        )
        .advise("use VDDK: disks on vSAN and vVol datastores cannot be read over HTTPS")),
        (401 | 403, Way::Https) => Err(Failure::new(
            Class::Auth,
            format!("the server does not give {disk} to this user ({status})"),
        )
        .advise("give the user the privileges Datastore.Browse and Datastore.FileManagement")),
        (200, _) => Ok(Identity::Unknown(
            "the server tells neither the date nor the tag of its files".to_owned(),
        )),
        _ => Ok(Identity::Unknown(format!(
            "the server, asked for the file of the disk, answers with {status}"
        ))),
    }
}

fn endpoint(url: &str) -> Result<Endpoint, Failure> {
    Endpoint::of_url(url).map_err(|e| {
        let message = format!("the URL of the source: {}", datapath::error_chain(&e));
        Failure::new(Class::Config, message)
    })
}

fn no_name(disk: &str) -> Failure {
    Failure::new(Class::Config, format!("{disk:?} is no name of a disk at a server"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: &str = "[ds] web/web.vmdk";

    fn judged(way: Way, disk: &str, said: &str) -> Result<Identity, Class> {
        judge(way, disk, &Head::parse(said), said).map_err(|failure| failure.class)
    }

    #[test]
    fn a_server_that_is_away_costs_nothing_and_one_that_does_not_tell_is_not_believed() {
        for way in [Way::Https, Way::Vddk] {
            for away in ["", "curl: (7) Failed to connect to vc port 443", "HTTP/1.1 503 Busy\n"] {
                assert_eq!(judged(way, DISK, away), Err(Class::Network), "{away}");
            }
            let untold = judged(way, DISK, "HTTP/1.1 200 OK\nContent-Length: 1\n");
            assert!(matches!(untold, Ok(Identity::Unknown(_))));
        }
        let odd = judged(Way::Vddk, DISK, "HTTP/1.1 404 Not Found\n");
        assert!(matches!(odd, Ok(Identity::Unknown(_))), "VDDK reads it all the same");
    }

    #[test]
    fn what_https_cannot_read_is_said_before_anything_is_written() {
        let missing = "HTTP/1.1 404 Not Found\n";
        assert_eq!(judged(Way::Https, DISK, missing), Err(Class::NotFound));
        let newest = "[ds] web/web-000002.vmdk";
        assert_eq!(judged(Way::Https, newest, missing), Err(Class::SourceBusy));
        assert_eq!(judged(Way::Https, DISK, "HTTP/1.1 401 No\n"), Err(Class::Auth));
    }
}
