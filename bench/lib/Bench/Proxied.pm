package Bench::Proxied;

# The nginxes of the rows about proxied requests: one that answers, and two in
# front of it that differ in the module only.
#
#   backend($session)       answers on the ports 8081..8084
#   front($session, $with, %how)  not yet running; %how as for
#                           Bench::Session::nginx(), main => directives,
#                           unused => upstreams that nobody asks, upstreams
#                           and locations => text to add
#   front_port($with)       where it listens
#   measure($session, $front, $with, %how)  requests per second (rate), and the
#                           worker's microseconds for each (cpu); %how as for
#                           wrk
#   check($session, $nginx) dies unless the module rides on the requests of
#                           this one, which has it and is running

use v5.36;

use Test::Nginx;

# The smallest reply to the smallest request: whatever the module adds shows
# most beside it.
my $BACKEND = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 1;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;
    keepalive_requests 100000000;

    server {
        listen 127.0.0.1:8081;
        listen 127.0.0.1:8082;
        listen 127.0.0.1:8083;
        listen 127.0.0.1:8084;
        location / { return 200 "ok\n"; }
    }
}
CONF

my $FRONT = <<'CONF';
%%TEST_GLOBALS%%
%%MAIN%%
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;
    keepalive_requests 100000000;

    upstream backend {
        zone backend 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083;
        server 127.0.0.1:8084;
        keepalive 64;
        keepalive_requests 100000000;
    }

%%UPSTREAMS%%
    server {
        listen 127.0.0.1:%%PORT%%;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        location / {
            proxy_pass http://backend;
        }
        %%LOCATIONS%%
    }

    # Beside the way of the requests.
    server {
        listen 127.0.0.1:%%STATUS_PORT%%;
        location = /status { %%STATUS%% }
    }
}
CONF

sub backend ($session) {
	my $backend = $session->nginx(conf => $BACKEND);
	$session->start($backend);
	return $backend;
}

sub front_port ($with) { return $with ? 8010 : 8020 }

sub front ($session, $with, %how) {
	my $main = delete $how{main} // 'worker_processes 1;';
	my $upstreams = join '', delete $how{upstreams} // '', map {
		"    upstream unused_$_ { server 127.0.0.1:8081; }\n"
	} 1 .. delete $how{unused} // 0;
	my $locations = delete $how{locations} // '';

	return $session->nginx(
		%how, module => $with, conf => $FRONT, holes => {
			MAIN => $main, UPSTREAMS => $upstreams,
			LOCATIONS => $locations, PORT => front_port($with),
			STATUS_PORT => front_port($with) + 1,
			STATUS => $with && !$session->null()
				? 'upstream_status;' : 'return 204;',
		},
	);
}

sub measure ($session, $front, $with, %how) {
	my ($worker) = $front->workers();
	my $before = $session->cpu($worker);
	my $got = $front->wrk(%how, threads => 1, port => front_port($with));
	my $cpu = $session->cpu($worker) - $before;

	die "proxied requests have failed:\n$got->{text}\n"
		if $got->{failed} || !$got->{total};

	return { rate => $got->{per_second}, cpu => $cpu / $got->{total} / 1000 };
}

sub check ($session, $nginx) {
	return if $session->null();

	my $all = get_json('/status', port => front_port(1) + 1,
		headers => { Accept => 'application/json' });

	die "the module does not control the upstream that is measured\n"
		unless $all->{upstreams}{backend}{dynamic};
}

1;
