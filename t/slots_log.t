#!/usr/bin/env perl

# Tests for the names of servers in the access log before nginx 1.27.3, where a
# slot may have another server before a request that the last one served is
# logged: each line names the servers that the request was at.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Socket qw/MSG_PEEK/;
use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy realip upstream_zone upstream_keepalive
	upstream_least_conn upstream_ip_hash upstream_hash upstream_random
/);

plan(skip_all => 'lists grow since nginx 1.27.3')
	if $t->has_version('1.27.3');

# More than the buffers of sockets take.
use constant SIZE => 300_000;

# With keepalive another module stands between nginx and the balancer.
my %METHODS = (
	rr => '', least => 'least_conn;', ip => 'ip_hash;', hash => 'hash $arg_key;',
	ring => 'hash $arg_key consistent;', random => 'random;',
	two => 'random two;', kept => 'keepalive 4;',
);
my @METHODS = sort keys %METHODS;

$t->plan(8 * 8);

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => join '',
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    log_format addr '$request_uri $status $upstream_addr; $upstream_status';
    access_log %%TESTDIR%%/addr.log addr;

    upstream_capacity 2;

    %%UPSTREAMS%%

    # The client's address chooses under ip_hash, hence one for each request.
    set_real_ip_from 127.0.0.1;
    real_ip_header X-Real-IP;

    server {
        listen 127.0.0.1:8080 sndbuf=32k;
        add_header X-Tried $upstream_addr;

        # All of the answer is taken from the server before the client has it.
        proxy_buffering on;
        %%KEEPALIVE%%

        location /status {
            access_log off;
            upstream_status;
        }

        location /control {
            access_log off;
            upstream_control;
        }

        %%BY_NAME%%
    }
}
CONF
	map { "upstream $_ { zone $_ 64k; $METHODS{$_} server 127.0.0.1:8081; }\n" }
		@METHODS);

my $key = 0;
my $backend = $t->backend('127.0.0.1:8081', body => 'a' x SIZE);
$t->run();
$t->leak_keys('/status', 8080);

for my $name (@METHODS) {
	logged($name, '127.0.0.1:8081', 'one server');
	# Nobody listens there.
	act($name, 'add=&server=127.0.0.1:8088&max_fails=0');
	logged($name, '127.0.0.1:8088, 127.0.0.1:8081', 'two servers');
}

sub act ($name, $args) {
	my $r = control("/control?upstream=$name&$args");
	die "$name: $args: " . $r->told() . "\n"
		if $r->status() != 200;
}

sub upstream ($name) {
	return get_json("/status?upstream=$name&verbose=")->{upstreams}{$name};
}

# A request that was at these servers, whose client does not read the answer:
# the handle and the uri.  nginx has all of the answer, and the slot is free.
sub begin ($name, $wanted) {
	my ($handle, $uri);

	for my $i (1 .. 60) {
		my $before = $backend->count();
		$uri = "/u/$name?key=" . ++$key;
		$handle = http_start(uri => $uri, timeout => 30,
			headers => { 'X-Real-IP' => "10.$i." . $i * $i % 251 . '.1' });
		$t->wait_for(sub {
			return $backend->count() > $before
				&& !upstream($name)->{leaks}{primary}{conns};
		}, 20, "$name: the server is done") or last;

		my $head = '';
		$t->wait_for(sub { recv $handle->{over}, $head, 1024, MSG_PEEK;
			$head =~ /\r\n\r\n/ }, 5, "$name: a reply");
		my ($tried) = $t->logical($head) =~ /^X-Tried: (.*)\r$/m;
		return ($handle, $uri) if ($tried // '') eq $wanted;
	}

	die "$name: no request was at $wanted\n";
}

# What the log says of a request.
sub lines ($uri) {
	return grep { /^\Q$uri\E / } split /\n/,
		$t->logical($t->read_file('addr.log'));
}

# There are three slots.  When the request is logged each had other servers.
sub logged ($name, $wanted, $text) {
	my ($handle, $uri) = begin($name, $wanted);
	my @ids = map { $_->{id} } @{ upstream($name)->{peers} };

	is_deeply([ lines($uri) ], [], "$name: $text: not logged yet");
	for my $port (9001 .. 9003) {
		act($name, "id=$ids[$_]&server=127.0.0.2" . "$_:$port") for 0 .. $#ids;
	}
	is_deeply([ lines($uri) ], [], "$name: $text: nor when they are all gone");

	is(length http_finish($handle, timeout => 30)->body(), SIZE,
		"$name: $text: the answer");
	$t->wait_for(sub { lines($uri) == 1 }, 5, "$name: $text: a line in the log");
	my $status = $wanted =~ /, / ? '502, 200' : '200';
	is_deeply([ lines($uri) ], ["$uri 200 $wanted; $status"],
		"$name: $text: the log");

	act($name, "remove=&id=$_") for @ids[1 .. $#ids];
	act($name, "id=$ids[0]&server=127.0.0.1:8081");
}
