package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestSessionsEnd(t *testing.T) {
	counted := &stats{}
	s := newSessions(&Config{SessionIdleS: 10, SessionLifeS: 25}, counted)
	clock := time.Unix(0, 0)
	s.now = func() time.Time { return clock }
	after := func(seconds int, id string) bool {
		clock = clock.Add(time.Duration(seconds) * time.Second)
		return s.use(id)
	}
	idle := s.create()
	if !after(9, idle) || !after(9, idle) || after(11, idle) {
		t.Error("idle")
	}
	life := s.create()
	if !after(9, life) || !after(9, life) || after(9, life) {
		t.Error("life")
	}
	logout := s.create()
	s.end(logout)
	if after(0, logout) || after(0, "never was one") {
		t.Error("logout")
	}
	if made, expired := counted.SessionsMade.Load(), counted.SessionsExpired.Load(); made != 3 || expired != 2 {
		t.Error(made, expired)
	}
}

func TestDrop(t *testing.T) {
	const length = 100000
	counted := &stats{}
	faults := &Faults{Drop: 1, AfterBytes: length}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100000")
		disk := &diskWriter{ResponseWriter: w, stats: counted, drop: faults.due(faults.Drop, counted), cut: -1}
		disk.WriteHeader(http.StatusPartialContent)
		for i := 0; i < length; i += 1000 {
			_, _ = disk.Write(make([]byte, 1000))
		}
	}))
	defer server.Close()
	get := func() (int, error) {
		reply, err := http.Get(server.URL)
		if err != nil {
			return 0, err
		}
		defer reply.Body.Close()
		body, err := io.ReadAll(reply.Body)
		return len(body), err
	}
	if n, err := get(); n != length || err != nil || counted.Dropped.Load() != 0 {
		t.Error("before after_bytes:", n, err)
	}
	late := 0
	for i := 0; i < 20; i++ {
		before := counted.DiskBytes.Load()
		n, err := get()
		if err == nil || n >= length || counted.DiskBytes.Load()-before != int64(n) {
			t.Error(n, err)
		}
		if n > 1000 {
			late++
		}
	}
	if counted.Dropped.Load() != 20 || late == 0 {
		t.Error(counted.Dropped.Load(), late)
	}
}

func TestRefuse(t *testing.T) {
	counted := &stats{}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Listener = &refusingListener{Listener: server.Listener, faults: &Faults{Refuse: 1}, stats: counted}
	server.Start()
	defer server.Close()
	if _, err := http.Get(server.URL); err == nil || counted.Refused.Load() == 0 {
		t.Error(err, counted.Refused.Load())
	}
}
