//! Asks a vCenter or an ESXi host for all its VMs: one session, pages, logout.
//!
//! By SOAP, which every version has; the JSON interface is only vCenter's, from 8.0 U1 on (docs/decisions.md).

use super::error::Error;
use super::http::{Http, Limits};
use super::model::{Inventory, ServerKind};
use super::server::Server;
use super::soap::{self, Object, Reference, child, element, said};
use super::tree::{self, Tree};
use super::trust::Trust;
use super::vm;
use roxmltree::{Document, Node, ParsingOptions};
use std::fmt;
use tokio::time::timeout;

/// Where to ask, as whom.
#[derive(Debug, Clone)]
pub struct Source {
    /// The server.
    pub server: Server,
    /// Whom to believe.
    pub trust: Trust,
    /// Who asks.
    pub user: String,
    /// Their password.
    pub password: Password,
}

/// A text that is not to be shown.
#[derive(Clone)]
pub struct Password(String);

impl Password {
    /// Of a secret's bytes; a line end behind it is none of it.
    pub fn new(text: &str) -> Self {
        let text = text.strip_suffix('\n').unwrap_or(text);
        Self(text.strip_suffix('\r').unwrap_or(text).to_owned())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// All VMs that the user may see.
pub async fn inventory(source: &Source, limits: &Limits) -> Result<Inventory, Error> {
    soap::sendable("the user name", &source.user)?;
    soap::sendable("the password", &source.password.0)?;
    let mut session = Session {
        http: Http::new(&source.server, &source.trust, limits)?,
        page: limits.page.max(1),
    };
    timeout(limits.total, session.run(source)).await.map_err(|_| Error::Slow {
        server: source.server.to_string(),
        call: "for its inventory",
        seconds: limits.total.as_secs(),
    })?
}

struct Session {
    http: Http,
    page: u32,
}

/// The objects of a server that all others are reached by.
struct Service {
    root: Reference,
    collector: Reference,
    sessions: Reference,
    views: Reference,
    product: String,
    kind: ServerKind,
}

impl Session {
    /// A session that ends in between takes its pages with it: all is asked once more.
    async fn run(&mut self, source: &Source) -> Result<Inventory, Error> {
        match self.attempt(source).await {
            Err(e) if e.is_session_end() => {
                tracing::info!(error = %e, "the source's session ended; logging in again");
                self.http.forget();
                self.attempt(source).await
            }
            result => result,
        }
    }

    async fn attempt(&mut self, source: &Source) -> Result<Inventory, Error> {
        let service = self.service().await?;
        let credentials =
            element("userName", &source.user) + &element("password", &source.password.0);
        self.call("Login", &service.sessions, &credentials, |_| Some(())).await?;
        let result = self.collect(&service).await;
        if matches!(&result, Err(e) if e.is_session_end()) {
            return result;
        }
        // Views go with the session. That it cannot be ended is no reason to throw away what was got.
        if let Err(e) = self.call("Logout", &service.sessions, "", |_| Some(())).await
            && result.is_ok()
        {
            tracing::warn!(error = %e, "the source's session was not ended");
        }
        self.http.forget();
        result
    }

    async fn service(&mut self) -> Result<Service, Error> {
        let instance =
            Reference { kind: "ServiceInstance".to_owned(), value: "ServiceInstance".to_owned() };
        let service = |content: Node<'_, '_>| {
            let value = child(content, "returnval")?;
            let reference = |name| child(value, name).and_then(Reference::of);
            let about = child(value, "about")?;
            Some(Service {
                root: reference("rootFolder")?,
                collector: reference("propertyCollector")?,
                sessions: reference("sessionManager")?,
                views: reference("viewManager")?,
                product: soap::printable(said(about, "fullName")?),
                kind: match said(about, "apiType")? {
                    "VirtualCenter" => ServerKind::VCenter,
                    _ => ServerKind::Esxi,
                },
            })
        };
        self.call("RetrieveServiceContent", &instance, "", service).await
    }

    async fn collect(&mut self, service: &Service) -> Result<Inventory, Error> {
        let mut tree = Tree::default();
        self.all(service, &tree::KINDS, "ManagedEntity", &tree::PATHS, |o| tree.add(o)).await?;
        if tree.has(tree::OPAQUE) {
            let kind = tree::OPAQUE;
            self.all(service, &[kind], kind, &tree::OPAQUE_PATHS, |o| tree.add_opaque(o)).await?;
        }
        let (mut vms, mut unreadable) = (Vec::new(), Vec::new());
        let kind = "VirtualMachine";
        self.all(service, &[kind], kind, &vm::PATHS, |object| {
            match vm::read(object, &tree, service.kind) {
                Ok(vm) => vms.push(vm),
                Err(why) => unreadable.push(why),
            }
        })
        .await?;
        Ok(Inventory { product: service.product.clone(), kind: service.kind, vms, unreadable })
    }

    /// All objects of some kinds, by a view, page by page. The view goes as soon as it has been read.
    async fn all(
        &mut self,
        service: &Service,
        kinds: &[&str],
        kind: &str,
        paths: &[&str],
        mut each: impl FnMut(&Object<'_>),
    ) -> Result<(), Error> {
        let arguments = soap::view(&service.root, kinds);
        let view = self
            .call("CreateContainerView", &service.views, &arguments, |c| {
                Reference::of(child(c, "returnval")?)
            })
            .await?;
        let mut call = "RetrievePropertiesEx";
        let mut arguments = soap::retrieve(&view, kind, paths, self.page);
        loop {
            let next = self
                .call(call, &service.collector, &arguments, |content| {
                    let (objects, token) = soap::page(content);
                    objects.iter().for_each(&mut each);
                    Some(token.map(str::to_owned))
                })
                .await?;
            let Some(token) = next else { break };
            call = "ContinueRetrievePropertiesEx";
            arguments = element("token", &token);
        }
        self.call("DestroyView", &view, "", |_| Some(())).await
    }

    /// One call; `read` takes what is needed out of the reply.
    async fn call<T>(
        &mut self,
        call: &'static str,
        this: &Reference,
        arguments: &str,
        read: impl FnOnce(Node<'_, '_>) -> Option<T>,
    ) -> Result<T, Error> {
        let reply = self.http.post(call, &soap::request(call, this, arguments)).await?;
        let server = self.http.server();
        let odd = |reason: String| Error::Reply { server: server.clone(), call, reason };
        let status = reply.status;
        let options = ParsingOptions { allow_dtd: false, ..ParsingOptions::default() };
        let document = match Document::parse_with_options(&reply.text, options) {
            Ok(document) => document,
            // Not SOAP at all: the status says more.
            Err(_) if !status.is_success() => {
                return Err(Error::Http { server, call, status: status.as_u16() });
            }
            Err(e) => return Err(odd(e.to_string())),
        };
        match soap::content(&document) {
            Ok(content) if status.is_success() => {
                read(content).ok_or_else(|| odd("something in it is missing".to_owned()))
            }
            Err(Some((fault, text))) => Err(Error::Fault { server, call, fault, text }),
            Ok(_) => Err(Error::Http { server, call, status: status.as_u16() }),
            Err(None) if !status.is_success() => {
                Err(Error::Http { server, call, status: status.as_u16() })
            }
            Err(None) => Err(odd("it is no SOAP".to_owned())),
        }
    }
}
