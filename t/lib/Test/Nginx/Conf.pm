package Test::Nginx::Conf;

# What nginx.conf says in many test files.
#
#   PIECES              holes that every configuration may have, and what
#                       fills them:
#       %%CONTROL%%     the locations /status and /control
#       %%BY_NAME%%     /u/NAME goes to the upstream NAME
#       %%CHURN%%       the locations that Test::Nginx::Churn needs
#       %%KEEPALIVE%%   idle connections to servers may be kept
#   servers([ \@listen, $locations ], ..)  the configuration of an nginx of one
#                       worker that is many servers

use v5.36;

# A hole stands where the first line of what fills it begins.
sub trim ($text) { return $text =~ s/\A\s+|\s+\z//gr }

use constant PIECES => (
	CONTROL => trim(<<'CONF'),
        location /status {
            upstream_status;
        }

        location /control {
            upstream_control;
        }
CONF
	BY_NAME => trim(<<'CONF'),
        location ~ ^/u/(?<name>\w+)$ {
            proxy_pass http://$name;
        }
CONF
	CHURN => trim(<<'CONF'),
        location /upstreamstatus {
            access_log off;
            upstream_status;
        }

        location /upstreamcontrol {
            access_log off;
            upstream_control;
            add_header X-Worker $pid;
        }

        location /upstreamconf {
            access_log off;
            upstream_conf;
            add_header X-Worker $pid;
        }
CONF
	KEEPALIVE => trim(<<'CONF'),
        proxy_http_version 1.1;
        proxy_set_header Connection "";
CONF
);

sub servers (@servers) {
	return <<'CONF' . join('', map { _server(@$_) } @servers) . "}\n";
%%TEST_GLOBALS%%
worker_processes 1;
events { worker_connections 4096; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;
    keepalive_requests 100000000;
CONF
}

sub _server ($listen, $locations) {
	return join "\n        ", "\n    server {", (map { "listen $_;" } @$listen),
		trim($locations) . "\n    }\n";
}

1;
