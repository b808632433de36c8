package script

// tlsVariables are those of ngx_stream_ssl_module and ngx_stream_ssl_preread_module,
// and whether a configuration may define them. Nobody's TLS is terminated or looked
// into here, so they are never set: as at every listener of nginx's without ssl.
var tlsVariables = map[string]bool{
	"ssl_alpn_protocol":         true,
	"ssl_cipher":                true,
	"ssl_ciphers":               true,
	"ssl_client_cert":           true,
	"ssl_client_escaped_cert":   true,
	"ssl_client_fingerprint":    true,
	"ssl_client_i_dn":           true,
	"ssl_client_raw_cert":       true,
	"ssl_client_s_dn":           true,
	"ssl_client_serial":         true,
	"ssl_client_sigalg":         true, // since 1.29.3
	"ssl_client_v_end":          true,
	"ssl_client_v_remain":       true,
	"ssl_client_v_start":        true,
	"ssl_client_verify":         true,
	"ssl_curve":                 true,
	"ssl_curves":                true,
	"ssl_ech_outer_server_name": true, // since 1.29.4
	"ssl_ech_status":            true, // since 1.29.4
	"ssl_protocol":              true,
	"ssl_server_name":           true,
	"ssl_session_id":            true,
	"ssl_session_reused":        true,
	"ssl_sigalg":                true, // since 1.29.3

	"ssl_preread_alpn_protocols": false,
	"ssl_preread_protocol":       false,
	"ssl_preread_server_name":    false,
}

// notSet is the getter of a variable that no session has.
func notSet(b []byte, _ *Facts) ([]byte, bool) { return b, false }
