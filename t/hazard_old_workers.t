#!/usr/bin/env perl

# Tests under load: workers of the configuration before a reload end what they
# have in hand while servers come, go, and change their states.  What was answered
# holds for each request of theirs, and none fails.
#
# TEST_NGINX_LONG is the time in seconds.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;
use Test::Nginx::Process qw/wait_until alive/;

my $long = $ENV{TEST_NGINX_LONG};
my $seconds = $long || 5;
my $timeout = 150 + 2 * $seconds;

# Requests that old workers have in hand, for each method.
use constant IN_HAND => 24;

my $t = Test::Nginx->new(timeout => $timeout)->has(qw/
	module http proxy upstream_zone upstream_keepalive upstream_least_conn
	upstream_hash upstream_ip_hash upstream_random
/)->plan(7);

my %METHODS = (
	round_robin => '', least_conn => 'least_conn;', ip_hash => 'ip_hash;',
	ring => 'hash $request_id consistent;', random => 'random;',
	two => 'random two least_conn;',
);
my @METHODS = sort keys %METHODS;

# What the test changes, and what a client changes at the same time.
my @own = map { "127.0.1.$_:" . port(8083) } 1 .. 4;
my @any = map { "127.0.2.$_:" . port(8083) } 1 .. 3;
my $B = '127.0.0.1:' . port(8082);

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => join '',
%%TEST_GLOBALS%%
worker_processes 3;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;

    %%UPSTREAMS%%

    server {
        listen 127.0.0.1:8080;

        %%KEEPALIVE%%

        location /here { return 200; }
        location /status { upstream_status; }
        location /control { upstream_control; }
        location ~ ^/u/(?<name>\w+)$ { proxy_pass http://$name; }
    }
}
CONF
	map { "upstream $_ { zone $_ 256k; $METHODS{$_} server 127.0.0.1:8081; "
		. "server 127.0.0.1:8082; keepalive 8; }\n" } @METHODS);

my $backends = Test::Nginx->new(timeout => $timeout);
$backends->write_file_expand('nginx.conf', <<'CONF', LISTEN => join '', map {
%%TEST_GLOBALS%%
events { worker_connections 4096; }
http {
    %%TEST_GLOBALS_HTTP%%
    access_log off;
    keepalive_requests 1000000;

    server {
        listen 127.0.0.1:8081;
        listen 127.0.0.1:8082;
%%LISTEN%%
        location / { return 200 "$server_addr:$server_port"; }
    }
}
CONF
	"        listen $_;\n" } @own, @any);

$backends->run();
$t->run();

my $stop = $t->testdir() . '/stop';
my $client = $t->run_daemon(sub { client($stop) });
my %sum = map { $_ => 0 } qw/rounds changes requests/;
my (@refused, @failed, @wrong);

my $begin = now();
round() while now() < $begin + $seconds;

$t->write_file('stop', '');
wait_until(sub { !alive($client) }, 30) or die "the client does not end\n";
($long ? \&diag : \&note)->(join ', ', map { "$sum{$_} $_" } sort keys %sum);

cmp_ok($sum{rounds}, '>', 0, 'reloads');
cmp_ok($sum{requests}, '>', 50, 'requests of old workers');
is_deeply(\@refused, [], 'no change was refused');
is_deeply(\@failed, [], 'no request failed');
is_deeply(\@wrong, [], 'none reached a server that was down or gone');
ok($t->reload(old_gone => 1, seconds => 30), 'old workers end');
my $all = get_json('/status?verbose=')->{upstreams};
is_deeply([ map { @{ $all->{$_}{leaks}{faults} } } @METHODS ], [],
	'no faults in the lists');

# The zones of the upstreams are new.
$t->leak_keys('/status', port(8080));

# Old workers end their requests one after the other, after a change each.
sub round {
	my %in_hand = map { my $name = $_;
		$name => [ map { begin("/u/$name") } 1 .. IN_HAND ] } @METHODS;

	$t->reload(seconds => 30) or die "reload failed\n";
	$sum{rounds}++;

	# What is there, and what old workers must not send anything to.
	my %there = map { $_ => {} } @METHODS;
	my %off = map { $_ => {} } @METHODS;

	for (1 .. IN_HAND) {
		for my $name (@METHODS) {
			change($name, $there{$name}, $off{$name}) for 0 .. int rand 3;
			my $r = finish(pop @{ $in_hand{$name} });
			$sum{requests}++;
			push @failed, "$name: " . $r->status() . ' ' . $r->error()
				if $r->status() != 200;
			push @wrong, "$name: " . $r->body() if $off{$name}{ $r->body() };
		}
	}

	return;
}

sub change ($name, $there, $off) {
	my $server = (@own, $B)[rand @own + 1];
	my $verb = $server eq $B || $there->{$server} && rand() < 0.5
		? ($off->{$server} ? 'up' : (qw/down drain/)[rand 2])
		: $there->{$server} ? 'remove' : 'add';
	my $r = http_get("/control?upstream=$name&$verb=&server=$server");

	return push @refused, "$name: $verb $server: " . $r->status() . ' ' . $r->body()
		if $r->status() != 200;
	$sum{changes}++;
	$there->{$server} = $verb ne 'remove';
	$off->{$server} = $verb !~ /add|up/;

	return;
}

# A request whose body a worker is waiting for: it is in its hands, since that
# has answered what was sent before it in one piece.
sub begin ($uri) {
	my $h = http_start(uri => '/here', keepalive => 1,
		headers => { 'Content-Length' => undef },
		body => "POST $uri HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
			. "Connection: close\r\n\r\n1");
	$t->wait_for(sub { sysread $h->{over}, my $reply, 65_536 }, 10, 'a reply');

	return $h;
}

sub finish ($h) {
	syswrite $h->{over}, '2';
	return http_finish($h, timeout => 20);
}

# From here on: the client's own process.
sub client ($stop) {
	srand $$;
	while (!-e $stop) {
		my $name = $METHODS[rand @METHODS];
		my $verb = (qw/add remove/)[rand 2];
		http_get("/control?upstream=$name&$verb=&server=$any[rand @any]");
	}
	return;
}
