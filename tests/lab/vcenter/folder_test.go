package main

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
)

func TestFolder(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	disk := filepath.Join(outside, "disk.raw")
	if err := os.WriteFile(disk, []byte("0123456789"), 0o444); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"first/web", "second/web"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// A disk may be a link to a file nobody may write.
	if err := os.Symlink(disk, filepath.Join(dir, "first/web/a b-flat.vmdk")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "second/web/x.vmdk"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	counted := &stats{}
	config := &Config{
		Mode: "vpx", User: "u", Password: "p", Datacenter: "DC",
		Datastores: []Datastore{{"a/b", filepath.Join(dir, "first")}, {"a%2fb", filepath.Join(dir, "second")}},
	}
	handler := &folderHandler{config: config, sessions: newSessions(config, counted), stats: counted}
	const flat = "/folder/web/a%20b-flat.vmdk?dcPath=DC&dsName=a/b"
	for _, c := range []struct {
		method, url, user, pieces string
		status                    int
		body                      string
	}{
		{"HEAD", flat, "u", "", 200, ""},
		{"GET", flat, "u", "", 200, "0123456789"},
		{"GET", flat, "u", "bytes=3-5", 206, "345"},
		{"GET", flat, "u", "bytes=8-99", 206, "89"},
		{"GET", flat, "u", "bytes=10-", 416, "invalid range: failed to overlap\n"},
		{"GET", "/folder/web/x.vmdk?dcPath=DC&dsName=a%252fb", "u", "", 200, "x"},
		{"GET", flat, "", "", 401, "401 Unauthorized\n"},
		{"GET", flat, "other", "", 401, "401 Unauthorized\n"},
		{"PUT", flat, "u", "", 405, "only GET and HEAD\n"},
		{"GET", "/folder/web/none.vmdk?dcPath=DC&dsName=a/b", "u", "", 404, "404 Not Found\n"},
		{"GET", "/folder/web?dcPath=DC&dsName=a/b", "u", "", 404, "404 Not Found\n"},
		{"GET", "/folder/..%2f..%2fsecond/web/x.vmdk?dcPath=DC&dsName=a/b", "u", "", 404, "404 Not Found\n"},
		{"GET", "/folder/web/x.vmdk?dcPath=Other&dsName=a%252fb", "u", "", 404, "404 Not Found\n"},
	} {
		request := httptest.NewRequest(c.method, c.url, nil)
		if c.user != "" {
			request.SetBasicAuth(c.user, "p")
		}
		if c.pieces != "" {
			request.Header.Set("Range", c.pieces)
		}
		reply := httptest.NewRecorder()
		handler.ServeHTTP(reply, request)
		if reply.Code != c.status || reply.Body.String() != c.body {
			t.Errorf("%s %s %s: %d %q", c.method, c.url, c.pieces, reply.Code, reply.Body)
		}
	}
	if counted.LoginsFailed.Load() != 1 || counted.Unauthorised.Load() != 2 || counted.DiskBytes.Load() != 15 {
		t.Errorf("%+v", counted)
	}

	cookie := &http.Cookie{Name: "vmware_soap_session", Value: handler.sessions.create()}
	request := &http.Request{Method: "GET", URL: &url.URL{Path: "/folder/web/x.vmdk", RawQuery: "dcPath=DC&dsName=a%252fb"}, Header: http.Header{}}
	request.AddCookie(cookie)
	reply := httptest.NewRecorder()
	handler.ServeHTTP(reply, request)
	if reply.Code != http.StatusOK || reply.Header().Get("Set-Cookie") != "" {
		t.Error(reply.Code, reply.Header())
	}
}

func TestDatacenterInFolders(t *testing.T) {
	config := &Config{DatacenterFolder: []string{"a/b", "c d"}, Datacenter: "DC"}
	for value, want := range map[string]bool{
		"a%2fb/c d/DC":     true,
		"a%252fb/c%20d/DC": true,
		"a/b/c d/DC":       true,
		"DC":               false,
		"c d/DC":           false,
	} {
		if got := config.isDatacenter(value); got != want {
			t.Errorf("%s: %v", value, got)
		}
	}
}
