package main

import (
	"encoding/json"
	"net/http"
	"sync/atomic"
)

// statsPath answers with the counters, to anyone, on a port of its own.
const statsPath = "/vclab/stats"

// stats count what was asked and what went wrong, so that a test can see that it did.
type stats struct {
	SOAP, FolderHead, FolderGet, FolderOther atomic.Int64 // requests
	DiskBytes                                atomic.Int64 // of the -flat.vmdk files, sent
	Dropped, Refused                         atomic.Int64 // connections, by the configured faults
	SessionsMade, SessionsExpired            atomic.Int64
	LoginsFailed                             atomic.Int64 // wrong names or passwords, SOAP and /folder/
	Unauthorised                             atomic.Int64 // 401 of /folder/
	NotAuthenticated                         atomic.Int64 // SOAP faults for want of a session
}

func (s *stats) folderRequest(method string) {
	switch method {
	case http.MethodHead:
		s.FolderHead.Add(1)
	case http.MethodGet:
		s.FolderGet.Add(1)
	default:
		s.FolderOther.Add(1)
	}
}

func (s *stats) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"requests": map[string]int64{
			"soap":         s.SOAP.Load(),
			"folder_head":  s.FolderHead.Load(),
			"folder_get":   s.FolderGet.Load(),
			"folder_other": s.FolderOther.Load(),
		},
		"disk_bytes":        s.DiskBytes.Load(),
		"dropped":           s.Dropped.Load(),
		"refused":           s.Refused.Load(),
		"sessions_made":     s.SessionsMade.Load(),
		"sessions_expired":  s.SessionsExpired.Load(),
		"logins_failed":     s.LoginsFailed.Load(),
		"unauthorised":      s.Unauthorised.Load(),
		"not_authenticated": s.NotAuthenticated.Load(),
	})
}
