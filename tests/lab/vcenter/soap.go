package main

import (
	"bytes"
	"log"
	"net/http"
	"regexp"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
)

// soapHandler answers /sdk with the simulator, and its replies with what clients of the real server rely on.
type soapHandler struct {
	service  *simulator.Service
	sessions *sessions
	stats    *stats
	endAt    int64
	verbose  bool
}

// heldReply holds a reply back until it has been rewritten. SOAP replies are small; disks do not come this way.
type heldReply struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (h *heldReply) Header() http.Header         { return h.header }
func (h *heldReply) WriteHeader(status int)      { h.status = status }
func (h *heldReply) Write(p []byte) (int, error) { return h.body.Write(p) }

func (h *soapHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	count := h.stats.SOAP.Add(1)
	if h.verbose {
		r.Body = &loggedBody{ReadCloser: r.Body}
	}
	// The simulator sees only cookies of sessions that are still alive.
	id := sessionCookie(r)
	if count == h.endAt {
		h.sessions.end(id)
	}
	if id != "" && !h.sessions.use(id) {
		r.Header.Del("Cookie")
	}
	held := &heldReply{header: w.Header(), status: http.StatusOK}
	h.service.ServeSDK(held, r)
	for _, cookie := range (&http.Response{Header: held.header}).Cookies() {
		if cookie.Name == soap.SessionCookieName {
			h.sessions.add(cookie.Value)
			held.header.Set("Set-Cookie", setCookie(cookie.Value))
		}
	}
	reply := h.words(id, normalise(held.body.Bytes()))
	if h.verbose {
		if body, ok := r.Body.(*loggedBody); ok {
			log.Printf("> %s", redact(body.text.String()))
		}
		log.Printf("< %d %s", held.status, redact(string(reply)))
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.WriteHeader(held.status)
	_, _ = w.Write(reply)
}

// What the simulator says of a fault, and what the real server does.
var (
	simulatorLoginFault   = []byte("<faultstring>Login failure</faultstring>")
	realLoginFault        = []byte("<faultstring>Cannot complete login due to an incorrect user name or password.</faultstring>")
	simulatorSessionFault = []byte("<faultstring></faultstring>")
	realSessionFault      = []byte("<faultstring>The session is not authenticated.</faultstring>")
)

// words counts the logins that failed, ends the session (its id is given) that logged out, and puts the real server's words
// into faults.
func (h *soapHandler) words(id string, reply []byte) []byte {
	switch {
	case bytes.Contains(reply, []byte("<LogoutResponse ")):
		h.sessions.end(id)
	case bytes.Contains(reply, simulatorLoginFault):
		h.stats.LoginsFailed.Add(1)
		return bytes.Replace(reply, simulatorLoginFault, realLoginFault, 1)
	case bytes.Contains(reply, []byte("<NotAuthenticatedFault ")):
		h.stats.NotAuthenticated.Add(1)
		return bytes.Replace(reply, simulatorSessionFault, realSessionFault, 1)
	}
	return reply
}

var passwordElement = regexp.MustCompile(`(?s)(<(?:\w+:)?password\b[^>]*>).*?(</)`)

func redact(text string) string { return passwordElement.ReplaceAllString(text, "$1***$2") }

// normalise makes of the simulator's XML what the real server sends and libvirt insists on:
//   - the type attribute is xsi:type, by the prefix the envelope binds; the simulator writes a prefix of its own that
//     libvirt's parser takes for another name
//   - in an element of the type ArrayOfX each child X says its type too; the simulator leaves it out
//
// The simulator's encoder escapes < and > everywhere else, so a < always begins a tag.
func normalise(text []byte) []byte {
	var out bytes.Buffer
	out.Grow(len(text) + len(text)/4)
	var open []string // for each open element: X when it is of the type ArrayOfX, else nothing
	for len(text) > 0 {
		start := bytes.IndexByte(text, '<')
		if start < 0 {
			break
		}
		end := bytes.IndexByte(text[start:], '>')
		if end < 0 {
			break
		}
		end += start + 1
		out.Write(text[:start])
		tag := string(text[start:end])
		text = text[end:]
		switch {
		case strings.HasPrefix(tag, "<?"), strings.HasPrefix(tag, "<!"):
		case strings.HasPrefix(tag, "</"):
			if len(open) > 0 {
				open = open[:len(open)-1]
			}
		default:
			tag = normaliseTag(tag, last(open))
			if !strings.HasSuffix(tag, "/>") {
				open = append(open, arrayOf(tag))
			}
		}
		out.WriteString(tag)
	}
	out.Write(text)
	return out.Bytes()
}

var (
	foreignType = regexp.MustCompile(` (?:xmlns:XMLSchema-instance="[^"]*"|XMLSchema-instance:type=)`)
	arrayType   = regexp.MustCompile(` xsi:type="ArrayOf(\w+)"`)
	simpleTypes = map[string]string{
		"String": "xsd:string", "Int": "xsd:int", "Long": "xsd:long", "Short": "xsd:short", "Byte": "xsd:byte",
		"Boolean": "xsd:boolean", "Double": "xsd:double", "AnyURI": "xsd:anyURI",
	}
)

func normaliseTag(tag, item string) string {
	tag = foreignType.ReplaceAllStringFunc(tag, func(found string) string {
		if strings.HasSuffix(found, ":type=") {
			return " xsi:type="
		}
		return "" // the prefix's declaration, of no more use
	})
	if item == "" || strings.Contains(tag, " xsi:type=") {
		return tag
	}
	name := strings.TrimRight(strings.TrimPrefix(strings.Fields(tag)[0], "<"), "/>")
	return "<" + name + ` xsi:type="` + item + `"` + tag[1+len(name):]
}

func arrayOf(tag string) string {
	match := arrayType.FindStringSubmatch(tag)
	if match == nil {
		return ""
	}
	if simple, ok := simpleTypes[match[1]]; ok {
		return simple
	}
	return match[1]
}

func last(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[len(list)-1]
}
