//! VMware's SOAP, as much of it as an inventory needs: what is written and what is read. Pure.

use super::error::Error;
use roxmltree::{Document, Node};

const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";

/// A reference to an object of the server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Reference {
    /// `VirtualMachine`.
    pub kind: String,
    /// `vm-21`.
    pub value: String,
}

impl Reference {
    /// Of an element like `<parent type="Folder">group-v3</parent>`.
    pub fn of(node: Node<'_, '_>) -> Option<Self> {
        // xsi:type has a namespace, the reference's own attribute has none.
        let kind = node.attribute("type")?.to_owned();
        Some(Self { kind, value: node.text()?.trim().to_owned() })
    }

    fn element(&self, name: &str) -> String {
        format!("<{name} type=\"{}\">{}</{name}>", text(&self.kind), text(&self.value))
    }
}

/// A call with its arguments, which are XML.
pub(super) fn request(call: &str, this: &Reference, arguments: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns:xsi=\"{XSI}\">\
         <soapenv:Body><{call} xmlns=\"urn:vim25\">{}{arguments}</{call}></soapenv:Body></soapenv:Envelope>",
        this.element("_this")
    )
}

/// An element with text in it.
pub(super) fn element(name: &str, content: &str) -> String {
    format!("<{name}>{}</{name}>", text(content))
}

fn text(content: &str) -> String {
    let mut out = String::with_capacity(content.len());
    for c in content.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\r' => out.push_str("&#13;"),
            c => out.push(c),
        }
    }
    out
}

/// The first character that XML cannot carry, however it is written.
pub(super) fn stray(content: &str) -> Option<char> {
    let carried = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    content.chars().find(|c| !carried(*c))
}

/// A user name or password that can be sent.
pub(super) fn sendable(what: &'static str, content: &str) -> Result<(), Error> {
    match stray(content) {
        Some(c) => Err(Error::Character { what, code: c.into() }),
        None => Ok(()),
    }
}

/// All of a kind below an object, in pages: `paths` are the properties wanted.
pub(super) fn retrieve(view: &Reference, kind: &str, paths: &[&str], page: u32) -> String {
    let paths: String = paths.iter().map(|p| element("pathSet", p)).collect();
    format!(
        "<specSet><propSet>{}{paths}</propSet><objectSet>{}<skip>true</skip>\
         <selectSet xsi:type=\"TraversalSpec\"><type>ContainerView</type><path>view</path><skip>false</skip></selectSet>\
         </objectSet></specSet><options><maxObjects>{page}</maxObjects></options>",
        element("type", kind),
        view.element("obj"),
    )
}

/// A view of everything of some kinds below a folder.
pub(super) fn view(folder: &Reference, kinds: &[&str]) -> String {
    let kinds: String = kinds.iter().map(|k| element("type", k)).collect();
    format!("{}{kinds}<recursive>true</recursive>", folder.element("container"))
}

/// The content of a reply, or the server's complaint: kind of fault and text.
pub(super) fn content<'a>(
    document: &'a Document<'_>,
) -> Result<Node<'a, 'a>, Option<(String, String)>> {
    let body = child(document.root_element(), "Body").ok_or(None)?;
    let content = body.children().find(Node::is_element).ok_or(None)?;
    if content.tag_name().name() != "Fault" {
        return Ok(content);
    }
    let said = child(content, "faultstring").and_then(|n| n.text()).unwrap_or_default().trim();
    let detail = child(content, "detail").and_then(|d| d.children().find(Node::is_element));
    let name = detail.map_or("fault", |d| kind(d).unwrap_or(d.tag_name().name()));
    let name = name.strip_suffix("Fault").filter(|n| !n.is_empty()).unwrap_or(name);
    Err(Some((name.to_owned(), printable(said))))
}

/// What a server says is shown in logs and on terminals.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// `VirtualDisk` of `xsi:type="VirtualDisk"`.
pub(super) fn kind<'a>(node: Node<'a, '_>) -> Option<&'a str> {
    let name = node.attribute((XSI, "type"))?;
    Some(name.rsplit(':').next().unwrap_or(name))
}

/// The first child of a name.
pub(super) fn child<'a>(node: Node<'a, 'a>, name: &str) -> Option<Node<'a, 'a>> {
    node.children().find(|n| n.tag_name().name() == name)
}

/// What a child of a name says.
pub(super) fn said<'a>(node: Node<'a, 'a>, name: &str) -> Option<&'a str> {
    child(node, name)?.text()
}

/// An object of a page, with the properties that it has.
#[derive(Debug, Clone)]
pub(super) struct Object<'a> {
    /// Which.
    pub reference: Reference,
    properties: Vec<(&'a str, Node<'a, 'a>)>,
    /// A property that may not be seen, and why.
    pub missing: Option<(&'a str, &'a str)>,
}

impl<'a> Object<'a> {
    fn of(node: Node<'a, 'a>) -> Option<Self> {
        let reference = Reference::of(child(node, "obj")?)?;
        let sets = |name| node.children().filter(move |n| n.tag_name().name() == name);
        let properties = sets("propSet")
            .filter_map(|set| Some((said(set, "name")?, child(set, "val")?)))
            .collect();
        let missing = sets("missingSet").find_map(|set| {
            let fault = child(child(set, "fault")?, "fault");
            Some((said(set, "path")?, fault.and_then(kind).unwrap_or("unknown reason")))
        });
        Some(Self { reference, properties, missing })
    }

    /// A property that it has.
    pub fn property(&self, path: &str) -> Option<Node<'a, 'a>> {
        self.properties.iter().find(|(name, _)| *name == path).map(|(_, value)| *value)
    }

    /// The text of a property that it has.
    pub fn text(&self, path: &str) -> Option<&'a str> {
        Some(self.property(path)?.text().unwrap_or_default())
    }
}

/// The objects of a page, and the token with which the next one is asked for.
pub(super) fn page<'a>(content: Node<'a, 'a>) -> (Vec<Object<'a>>, Option<&'a str>) {
    let Some(page) = child(content, "returnval") else { return (Vec::new(), None) };
    let objects = page.children().filter(|n| n.tag_name().name() == "objects");
    (objects.filter_map(Object::of).collect(), said(page, "token"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reference(kind: &str, value: &str) -> Reference {
        Reference { kind: kind.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn a_fault_is_the_servers_words() {
        let xml = r#"<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
            <e:Body><e:Fault><faultcode>ServerFaultCode</faultcode><faultstring>Cannot complete login.</faultstring>
            <detail><InvalidLoginFault xmlns="urn:vim25" xsi:type="InvalidLogin"/></detail></e:Fault></e:Body></e:Envelope>"#;
        let document = Document::parse(xml).unwrap();
        let fault = content(&document).unwrap_err().unwrap();
        assert_eq!(fault, ("InvalidLogin".to_owned(), "Cannot complete login.".to_owned()));
        let untyped = xml.replace(r#" xsi:type="InvalidLogin""#, "");
        let document = Document::parse(&untyped).unwrap();
        assert_eq!(content(&document).unwrap_err().unwrap().0, "InvalidLogin");
        let document = Document::parse("<html><body/></html>").unwrap();
        assert_eq!(content(&document).unwrap_err(), None);
    }

    #[test]
    fn a_page_has_objects_and_what_is_missing() {
        let xml = r#"<r xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><returnval><token>t 1</token>
            <objects><obj type="VirtualMachine">vm-1</obj>
              <propSet><name>name</name><val xsi:type="xsd:string">web</val></propSet>
              <propSet><name>parent</name><val type="Folder" xsi:type="ManagedObjectReference">group-v3</val></propSet>
              <missingSet><path>config</path><fault><fault xsi:type="NoPermission"/><localizedMessage/></fault></missingSet>
            </objects></returnval></r>"#;
        let document = Document::parse(xml).unwrap();
        let (objects, token) = page(document.root_element());
        assert_eq!((objects.len(), token), (1, Some("t 1")));
        assert_eq!(objects[0].text("name"), Some("web"));
        assert_eq!(objects[0].missing, Some(("config", "NoPermission")));
        let parent = Reference::of(objects[0].property("parent").unwrap()).unwrap();
        assert_eq!(parent, reference("Folder", "group-v3"));
        assert!(objects[0].property("config").is_none());
    }

    #[test]
    fn what_xml_cannot_carry_is_found() {
        assert_eq!(stray("pässword <&>\t\u{1f600}"), None);
        assert_eq!(stray("a\u{7}"), Some('\u{7}'));
        assert_eq!(stray("a\u{ffff}"), Some('\u{ffff}'));
        let error = sendable("the password", "hunter2\u{1b}").unwrap_err().to_string();
        assert!(error.contains("the password") && !error.contains("hunter2"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(user in any::<String>(), password in any::<String>(), id in "\\PC{1,20}") {
            prop_assume!(stray(&user).is_none() && stray(&password).is_none());
            let arguments = element("userName", &user) + &element("password", &password);
            let xml = request("Login", &reference("SessionManager", &id), &arguments);
            let document = Document::parse(&xml).unwrap();
            let call = content(&document).unwrap();
            prop_assert_eq!(said(call, "userName").unwrap_or_default(), user);
            prop_assert_eq!(said(call, "password").unwrap_or_default(), password);
            prop_assert_eq!(Reference::of(child(call, "_this").unwrap()).unwrap().value, id.trim());
        }

        #[test]
        fn no_reply_is_too_odd(
            names in prop::collection::vec(
                "(Body|Fault|detail|returnval|objects|obj|propSet|missingSet|name|val|token|faultstring)", 0..24),
            text in "[a-z<>&]{0,6}",
        ) {
            let mut xml = element("x", &text);
            for name in names.iter().rev() {
                xml = format!("<{name} type=\"a\">{xml}</{name}>{}", element(name, &text));
            }
            let xml = format!("<Envelope>{xml}</Envelope>");
            let document = Document::parse(&xml).unwrap();
            let _ = content(&document);
            for node in document.descendants() {
                let _ = page(node);
            }
        }
    }
}
