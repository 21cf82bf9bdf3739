package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25/soap"
)

// sessions are the live ones, of SOAP logins and of /folder/ alike: each may use both, as on the real server.
type sessions struct {
	idle time.Duration // 0: for ever

	mutex sync.Mutex
	used  map[string]time.Time
}

func newSessions(idle time.Duration) *sessions {
	return &sessions{idle: idle, used: map[string]time.Time{}}
}

func (s *sessions) add(id string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.used[id] = time.Now()
}

func (s *sessions) create() string {
	var id [20]byte
	if _, err := rand.Read(id[:]); err != nil {
		panic(err)
	}
	text := hex.EncodeToString(id[:])
	s.add(text)
	return text
}

// use says whether the session lives, and keeps it alive.
func (s *sessions) use(id string) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	used, ok := s.used[id]
	if !ok {
		return false
	}
	if s.idle > 0 && time.Since(used) > s.idle {
		delete(s.used, id)
		return false
	}
	s.used[id] = time.Now()
	return true
}

// sessionCookie is the session a request names; the real server quotes it, and clients send the quotes back.
func sessionCookie(r *http.Request) string {
	cookie, err := r.Cookie(soap.SessionCookieName)
	if err != nil {
		return ""
	}
	return strings.Trim(cookie.Value, `"`)
}

func setCookie(id string) string {
	return soap.SessionCookieName + `="` + id + `"; Path=/; HttpOnly; Secure;`
}

// loggedBody keeps what was read from a request.
type loggedBody struct {
	io.ReadCloser
	text bytes.Buffer
}

func (b *loggedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.text.Write(p[:n])
	return n, err
}
