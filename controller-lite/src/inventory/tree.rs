//! The server's folders, datacenters, clusters, hosts and networks, by reference. Pure.

use super::model::{ServerKind, SourceHost};
use super::names::typed;
use super::soap::{Object, Reference, said};
use std::collections::HashMap;

/// What is looked at.
pub(super) const KINDS: [&str; 9] = [
    "Folder",
    "Datacenter",
    "ComputeResource",
    "ClusterComputeResource",
    "HostSystem",
    "VirtualApp",
    "Network",
    "DistributedVirtualPortgroup",
    "OpaqueNetwork",
];
/// Of each of them.
pub(super) const PATHS: [&str; 2] = ["name", "parent"];
/// The kind whose networks are known by another name than their reference.
pub(super) const OPAQUE: &str = "OpaqueNetwork";
/// Of those.
pub(super) const OPAQUE_PATHS: [&str; 2] = ["name", "summary"];
/// More steps up than any server has folders: a circle.
const DEEPEST: usize = 256;

#[derive(Debug)]
struct Entity {
    kind: String,
    /// As the server has it.
    name: String,
    parent: Option<String>,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Tree {
    entities: HashMap<String, Entity>,
    opaque: HashMap<String, String>,
}

impl Tree {
    /// Takes an object in.
    pub fn add(&mut self, object: &Object<'_>) {
        let entity = Entity {
            kind: object.reference.kind.clone(),
            name: object.text("name").unwrap_or_default().to_owned(),
            parent: object.property("parent").and_then(Reference::of).map(|r| r.value),
        };
        self.entities.insert(object.reference.value.clone(), entity);
    }

    /// Takes an opaque network's identifier in.
    pub fn add_opaque(&mut self, object: &Object<'_>) {
        let id = object.property("summary").and_then(|s| said(s, "opaqueNetworkId"));
        if let (Some(id), Some(name)) = (id, object.text("name")) {
            self.opaque.insert(id.to_owned(), typed(name));
        }
    }

    /// Whether there is any of a kind.
    pub fn has(&self, kind: &str) -> bool {
        self.entities.values().any(|e| e.kind == kind)
    }

    /// The name of a network, by reference.
    pub fn network(&self, reference: &str) -> Option<String> {
        Some(typed(&self.entities.get(reference)?.name))
    }

    /// The name of an opaque network, by identifier.
    pub fn opaque_network(&self, id: &str) -> Option<String> {
        self.opaque.get(id).cloned()
    }

    /// From an entity up to the root.
    fn up(&self, reference: &str) -> Vec<&Entity> {
        let mut found = Vec::new();
        let mut next = Some(reference);
        while let Some(entity) = next.and_then(|r| self.entities.get(r)) {
            found.push(entity);
            next = entity.parent.as_deref().filter(|_| found.len() < DEEPEST);
        }
        found
    }

    /// The folders around a VM, the outermost first. The datacenter's own `vm` folder is none of them.
    pub fn folders(&self, parent: &str) -> Vec<String> {
        let inside = self.up(parent).into_iter().take_while(|e| e.kind != "Datacenter");
        let mut names: Vec<String> = inside.map(|e| typed(&e.name)).collect();
        names.pop();
        names.reverse();
        names
    }

    /// A host and the way to it; `None` when too little of the way may be seen.
    pub fn host(&self, reference: &str, server: ServerKind) -> Option<SourceHost> {
        let way = self.up(reference);
        let at = way.iter().position(|e| e.kind == "Datacenter")?;
        let (inside, outside) = way.split_at(at);
        let [host, compute, folders @ .., _own] = inside else { return None };
        // The root is no part of the path, nor is a datacenter's own `host` folder.
        let outside = outside.iter().filter(|e| e.parent.is_some() || e.kind == "Datacenter");
        let datacenter: Vec<&str> = outside.map(|e| e.name.as_str()).rev().collect();
        let mut path: Vec<&str> = datacenter.clone();
        path.extend(folders.iter().rev().map(|e| e.name.as_str()));
        path.push(&compute.name);
        // To libvirt a host that stands alone is its compute resource.
        if compute.kind == "ClusterComputeResource" {
            path.push(&host.name);
        }
        let path = match server {
            ServerKind::VCenter => path.into_iter().map(str::to_owned).collect(),
            ServerKind::Esxi => Vec::new(),
        };
        Some(SourceHost {
            moref: reference.to_owned(),
            name: typed(&host.name),
            datacenter: datacenter.join("/"),
            path,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// `(reference, kind, name, parent)` of each.
    pub fn tree(entities: &[(&str, &str, &str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (reference, kind, name, parent) in entities {
            let parent = Some((*parent).to_owned()).filter(|p| !p.is_empty());
            let entity = Entity { kind: (*kind).to_owned(), name: (*name).to_owned(), parent };
            tree.entities.insert((*reference).to_owned(), entity);
        }
        tree
    }

    fn europe() -> Tree {
        tree(&[
            ("group-d1", "Folder", "Datacenters", ""),
            ("group-d5", "Folder", "Euro%2fpe", "group-d1"),
            ("datacenter-2", "Datacenter", "DC", "group-d5"),
            ("group-v3", "Folder", "vm", "datacenter-2"),
            ("group-v7", "Folder", "prod", "group-v3"),
            ("group-v8", "Folder", "web 1%25", "group-v7"),
            ("group-h4", "Folder", "host", "datacenter-2"),
            ("group-h6", "Folder", "racks", "group-h4"),
            ("domain-c9", "ClusterComputeResource", "C", "group-h6"),
            ("host-10", "HostSystem", "h1", "domain-c9"),
            ("domain-s11", "ComputeResource", "h2", "group-h4"),
            ("host-12", "HostSystem", "h2", "domain-s11"),
            ("host-13", "HostSystem", "h3", "domain-unseen"),
            ("circle", "Folder", "x", "circle"),
        ])
    }

    #[test]
    fn the_way_to_a_host() {
        let tree = europe();
        let host = tree.host("host-10", ServerKind::VCenter).unwrap();
        assert_eq!(host.path, ["Euro%2fpe", "DC", "racks", "C", "h1"]);
        assert_eq!((host.name.as_str(), host.datacenter.as_str()), ("h1", "Euro%2fpe/DC"));
        let alone = tree.host("host-12", ServerKind::VCenter).unwrap();
        assert_eq!(alone.path, ["Euro%2fpe", "DC", "h2"]);
        assert!(tree.host("host-12", ServerKind::Esxi).unwrap().path.is_empty());
        assert!(tree.host("host-13", ServerKind::VCenter).is_none());
        assert!(tree.host("circle", ServerKind::VCenter).is_none());
        assert!(tree.host("none", ServerKind::VCenter).is_none());
    }

    #[test]
    fn the_folders_around_a_vm() {
        let tree = europe();
        assert_eq!(tree.folders("group-v8"), ["prod", "web 1%"]);
        assert!(tree.folders("group-v3").is_empty());
        assert!(tree.folders("none").is_empty());
    }
}
