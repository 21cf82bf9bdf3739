//! The few tree look-ups that the XML readers of this folder share.
//!
//! Names are matched in no namespace only: libvirt's own elements have none, while vendor
//! extensions (`vmware:`, `qemu:`) do and must never be taken for libvirt's.

use roxmltree::Node;

/// Children of `parent` that are elements called `name`, in document order.
pub(super) fn children<'a, 'i: 'a>(
    parent: Node<'a, 'i>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'i>> {
    parent.children().filter(move |node| is(*node, name))
}

/// The first child element called `name`.
pub(super) fn child<'a, 'i: 'a>(parent: Node<'a, 'i>, name: &'static str) -> Option<Node<'a, 'i>> {
    children(parent, name).next()
}

/// The trimmed text of the first child element called `name`; `None` if absent or blank.
pub(super) fn child_text<'a, 'i: 'a>(parent: Node<'a, 'i>, name: &'static str) -> Option<&'a str> {
    child(parent, name).and_then(text)
}

/// The trimmed text of `node`; `None` if blank.
pub(super) fn text<'a, 'i: 'a>(node: Node<'a, 'i>) -> Option<&'a str> {
    node.text().map(str::trim).filter(|text| !text.is_empty())
}

/// Whether `node` is an element called `name` in no namespace.
pub(super) fn is(node: Node<'_, '_>, name: &str) -> bool {
    node.is_element() && node.tag_name().namespace().is_none() && node.tag_name().name() == name
}
