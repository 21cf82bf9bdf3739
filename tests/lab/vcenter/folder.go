package main

import (
	"crypto/subtle"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// folderHandler serves the files of the datastores: /folder/NAME?dcPath=DATACENTER&dsName=DATASTORE.
type folderHandler struct {
	config   *Config
	sessions *sessions
	stats    *stats
}

func (h *folderHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.stats.folderRequest(r.Method)
	if !h.authorise(w, r) {
		h.stats.Unauthorised.Add(1)
		w.Header().Set("WWW-Authenticate", `Basic realm="VMware HTTP server"`)
		http.Error(w, "401 Unauthorized", http.StatusUnauthorized)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	file, info := h.open(r.URL)
	if file == nil {
		http.Error(w, "404 Not Found", http.StatusNotFound)
		return
	}
	defer file.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "-flat.vmdk") {
		// Only here are clients prepared to try again.
		w = &diskWriter{ResponseWriter: w, stats: h.stats, drop: h.config.Faults.due(h.config.Faults.Drop, h.stats), cut: -1}
	}
	// Ranges, HEAD and Last-Modified; the file goes out in small pieces.
	http.ServeContent(w, r, "", info.ModTime(), file)
}

// authorise takes a live session, or a name and password, which begin one.
func (h *folderHandler) authorise(w http.ResponseWriter, r *http.Request) bool {
	if id := sessionCookie(r); id != "" && h.sessions.use(id) {
		return true
	}
	user, password, ok := r.BasicAuth()
	if !ok {
		return false
	}
	if !h.config.login(user, password) {
		h.stats.LoginsFailed.Add(1)
		return false
	}
	w.Header().Set("Set-Cookie", setCookie(h.sessions.create()))
	return true
}

func (c *Config) login(user, password string) bool {
	same := subtle.ConstantTimeCompare([]byte(user), []byte(c.User)) & subtle.ConstantTimeCompare([]byte(password), []byte(c.Password))
	return same == 1
}

func (h *folderHandler) open(at *url.URL) (*os.File, os.FileInfo) {
	query, err := url.ParseQuery(at.RawQuery)
	if err != nil {
		return nil, nil
	}
	// A host by itself takes its only datacenter for granted.
	if dc := query.Get("dcPath"); !(dc == "" && h.config.Mode == "esx") && !h.config.isDatacenter(dc) {
		return nil, nil
	}
	datastore := h.config.queried(query.Get("dsName"))
	if datastore == nil {
		return nil, nil
	}
	name := path.Clean("/" + strings.TrimPrefix(at.Path, "/folder"))
	file, err := os.Open(filepath.Join(datastore.Directory, filepath.FromSlash(name)))
	if err != nil {
		return nil, nil
	}
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		file.Close()
		return nil, nil
	}
	return file, info
}

// isDatacenter says whether a query's value means a datacenter of ours: the names of its folders and its own, between slashes. Each
// is taken as typed or as vCenter has it, all of one kind.
func (c *Config) isDatacenter(value string) bool {
	for _, place := range c.hosts() {
		typed := append(place.DatacenterFolder[:len(place.DatacenterFolder):len(place.DatacenterFolder)], place.Datacenter)
		var encoded []string
		for _, name := range typed {
			encoded = append(encoded, encodeName(name))
		}
		if matches(value, strings.Join(typed, "/")) || meansExactly(value, strings.Join(encoded, "/")) {
			return true
		}
	}
	return false
}

// queried is the datastore a query's value means, best by its very name: a/b and a%2fb are two.
func (c *Config) queried(value string) *Datastore {
	if exact := c.datastore(value); exact != nil {
		return exact
	}
	for i := range c.Datastores {
		if matches(value, c.Datastores[i].Name) {
			return &c.Datastores[i]
		}
	}
	return nil
}

// matches says whether a query's value, already decoded once, means this name. The real server decodes dcPath and dsName
// once more than HTTP does, and its names have % and / encoded; virt-v2v quoted once, then twice.
func matches(value, name string) bool {
	return meansExactly(value, name) || meansExactly(value, encodeName(name))
}

func meansExactly(value, name string) bool {
	again, err := url.PathUnescape(value)
	return value == name || err == nil && again == name
}
