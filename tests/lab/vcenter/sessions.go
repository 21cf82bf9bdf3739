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

// sessions are the live ones. Those of SOAP logins may read /folder/ too, as on the real server.
type sessions struct {
	idle, life time.Duration // 0: for ever
	now        func() time.Time
	stats      *stats

	mutex sync.Mutex
	live  map[string]*session
}

type session struct{ made, used time.Time }

func newSessions(config *Config, stats *stats) *sessions {
	return &sessions{
		idle:  seconds(config.SessionIdleS),
		life:  seconds(config.SessionLifeS),
		now:   time.Now,
		stats: stats,
		live:  map[string]*session{},
	}
}

func (s *sessions) add(id string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	now := s.now()
	s.live[id] = &session{made: now, used: now}
	s.stats.SessionsMade.Add(1)
}

// end is a logout.
func (s *sessions) end(id string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.live, id)
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
	session, ok := s.live[id]
	if !ok {
		return false
	}
	now := s.now()
	if s.idle > 0 && now.Sub(session.used) > s.idle || s.life > 0 && now.Sub(session.made) > s.life {
		delete(s.live, id)
		s.stats.SessionsExpired.Add(1)
		return false
	}
	session.used = now
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
