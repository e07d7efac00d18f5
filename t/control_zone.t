#!/usr/bin/env perl

# Tests for the module's own zone: its size follows the configuration, a larger
# one goes on with ids and revisions, and in a full one what takes servers back
# into service is never refused.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new(timeout => 240)->has(qw/module http upstream_zone/);

# Servers of the file, and upstreams of two.
my $SERVERS = 4_000;
my $PAIRS = 1_300;

$t->plan(4 + 18 + 7 + 14);

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 2;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%
    client_max_body_size 16m;
    %%ZONE%%

    # Before the one that fills the zone.
%%UPSTREAMS%%

    upstream u {
        zone u 256k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082 down;
%%THIRTY%%
    }

    # More room than the module has.
    upstream large {
        zone large 64m;
        server 127.0.0.1:8081;
    }

    server {
        listen 127.0.0.1:8080;

        location /status {
            upstream_status;
        }

        location /control {
            client_body_buffer_size 4m;
            upstream_control;
        }
    }
}
CONF

my $pairs = join '', map { "upstream pair$_ { zone pair$_ 32k; "
	. "server 127.0.0.7:1; server 127.0.0.7:2; }\n" } 1 .. $PAIRS;
my $many = "upstream many { zone many 8m;\n"
	. join('', map { 'server ' . address($_) . ";\n" } 1 .. $SERVERS) . '}';

configure();
$t->run();
start();
SKIP: {
	skip 'before nginx 1.27.3 the zone has room for all that can be added', 18
		unless $t->has_version('1.27.3');
	full();
}
many();
sizes();
$t->leak_keys('/status');

sub configure (%holes) {
	$t->write_file_expand('nginx.conf', $CONF, ZONE => '', UPSTREAMS => '',
		THIRTY => join('', map { "server 127.0.0.3:$_;\n" } 1 .. 30), %holes);
	return;
}

sub address ($i) { return sprintf '127.1.%d.%d:80', $i / 250, $i % 250 }

sub act ($args, $name = 'u') {
	return control("/control?upstream=$name&brief=&$args", timeout => 60);
}

sub text ($r) { return $r->told() }

sub upstream ($name) {
	return get_json("/status?upstream=$name", timeout => 60)->{upstreams}{$name};
}

# Id and state of each server, after the revision.
sub shown ($name) {
	my $all = upstream($name);
	return join ' ', $all->{revision},
		map { "$_->{id}:$_->{state}" } @{ $all->{peers} };
}

# The list of so many servers of the large one.
sub fill ($n) {
	my $list = join '', map { 'server ' . address($_) . ";\n" } 1 .. $n;

	return control('/control?upstream=large&replace=&force=', method => 'POST',
		body => $list, timeout => 60, headers => { 'Content-Type' => 'text/plain' });
}

# A small size says nothing.
sub start {
	my $mark = $t->log_mark();

	configure(ZONE => 'upstream_control_zone 32k;');
	ok($t->reload(old_gone => 1), 'a size that is too small');
	ok($t->find_in_log(qr/\[warn\] .*"upstream_control_zone 32k" is less than 16m, which the module takes for 33 server\(s\)$/, 5, $mark),
		'a warning');
	is(scalar $t->grep_log(qr/the module's zone has/, $mark), 0,
		'and no other zone');
	configure(ZONE => 'upstream_control_zone 16m;');
	$mark = $t->log_mark();
	$t->reload(old_gone => 1);
	is(scalar $t->grep_log(qr/\[warn\]/, $mark), 0, 'the size that it has');
	return;
}

# A zone that is full takes servers back into service all the same.
sub full {
	my $note = 'note=' . 'x' x 100;

	is(act("id=$_&down=&$note")->status(), 200, "$_ is down") for 2 .. 5;

	my $n = 0;
	my $refused = '';
	for my $step (map { 2**$_ } reverse 0 .. 14) {
		my $r = fill($n + $step);
		$r->status() == 200 ? ($n += $step) : ($refused = text($r));
	}
	cmp_ok($n, '>', 15_000, 'many servers are added');
	like($refused, qr/\A500 no memory left in the module's zone, \d+ bytes are needed: raise "upstream_control_zone"\z/,
		'until the zone is full');

	# What is left is too small for a server, and may do for a few notes.
	my @replies = map { act("id=$_&down=&$note") } 6 .. 31;
	my ($last) = grep { $_->status() != 200 } @replies;
	like(text($last // $replies[-1]), qr/\A500 no memory left in the module's zone/,
		'no other server is taken down');
	my $shown = shown('u');
	is(act("id=31&down=&$note")->status(), 500, 'nor the last one');
	is(shown('u'), $shown, 'which changes nothing');

	is(join(' ', map { act("id=$_&up=&$note")->status() } 2 .. 5),
		'200 200 200 200', 'those that are down come up');
	is(upstream('u')->{peers}[2]{reason}{note}, 'x' x 100, 'with the note');
	is(join(' ', map { act("id=2&$_&$note")->status() } qw/down= drain= weight=3 up=/),
		'200 200 200 200', 'and go and come');
	is(act('id=1&up=')->status(), 200, 'so does one that the file has down');
	is(upstream('u')->{peers}[1]{state}, 'up', 'which is up');
	is(act('id=1&down=')->status(), 200, 'and down again');
	is(act('server=' . address(1) . '&down=', 'large')->status(), 200,
		'one that was added is taken down');
	is(act('remove=&server=' . address(1), 'large')->status(), 200,
		'and removed');
	is(act('add=&server=' . address(1), 'large')->status(), 200,
		'and comes again');
	return;
}

# The file's servers have room, whatever came at run time.
sub many {
	configure(UPSTREAMS => "$many\n$pairs");
	$t->reload(old_gone => 1, seconds => 60);

	my @static = grep { !$_->{dynamic} }
		values %{ get_json('/status', timeout => 60)->{upstreams} };
	is_deeply([ map { $_->{reason} } @static ], [], 'all are controlled');
	is(scalar @{ upstream('large')->{peers} }, 1, 'added ones are gone');

	for my $state (qw/down up/) {
		my $r = control("/control?upstream=*&server=127.0.0.7&$state=",
			timeout => 60);
		is($r->status() . ' ' . (() = $r->body() =~ /: 2 servers changed/g),
			"200 $PAIRS", "all pairs are $state");
	}
	is(act("id=17&$_=", 'many')->status(), 200, "one of many is $_")
		for qw/down up/;
	is(upstream('many')->{revision}, 2, 'each is counted');
	return;
}

# A zone of another size goes on where the one before was.
sub sizes {
	my $mark = $t->log_mark();
	my %holes = (ZONE => 'upstream_control_zone 64m;');

	act('id=3&down=');
	act('add=&server=127.0.0.1:8083');
	my $before = upstream('u');
	configure(%holes);
	$t->reload(old_gone => 1);
	my $after = upstream('u');
	is_deeply([ map { $_->{id} } @{ $after->{peers} } ],
		[ map { $_->{id} } @{ $before->{peers} }[0 .. 31] ], 'a larger one: ids stay');
	is($after->{revision}, $before->{revision} + 1, 'the revision goes on');
	is(scalar $t->grep_log(qr/\[warn\] .*upstream "u" server .*: the reload dropped run-time changes/, $mark),
		2, 'what is dropped is said');
	like($t->find_in_log(qr/\[notice\] .*the module's zone has \d+ bytes/, 5, $mark),
		qr/has @{[ 64 << 20 ]} bytes now and had @{[ 16 << 20 ]}: workers that shut down take no changes any more/,
		'a notice');
	is(act('add=&server=127.0.0.1:8083')->status(), 200, 'it is controlled');
	is(upstream('u')->{peers}[32]{id}, $before->{peers}[32]{id} + 1,
		'no id is used again');

	$mark = $t->log_mark();
	my $shown = shown('u');
	configure();
	$t->reload(old_gone => 1);
	is(scalar $t->grep_log(qr/the module's zone has/, $mark), 0,
		'without a size it stays');
	is(shown('u') =~ s/\A\d+ //r, $shown =~ s/\A\d+ //r =~ s/ \S+\z//r, 'with ids');

	configure(ZONE => 'upstream_control_zone 20m;');
	$t->reload(old_gone => 1);
	ok($t->find_in_log(qr/\[notice\] .*the module's zone stays at 64m until nginx starts anew, "upstream_control_zone 20m" is less$/, 5, $mark),
		'a smaller one is none');
	is(scalar $t->grep_log(qr/the module's zone has/, $mark), 0, 'it stays');
	is(act('id=0&down=')->status(), 200, 'it is controlled');

	# So does one that the configuration makes larger.
	my $revision = upstream('u')->{revision};
	configure(UPSTREAMS => 'upstream huge { zone huge 16m; server 127.0.0.1:8081; '
		. 'upstream_capacity 100000; }') if $t->has_version('1.27.3');
	$t->reload(old_gone => 1);
	is(scalar $t->grep_log(qr/the module's zone has @{[ 256 << 20 ]} bytes/, $mark),
		$t->has_version('1.27.3') ? 1 : 0, 'larger for what the file has');
	is(upstream('u')->{revision}, $revision + 1, 'the revision goes on');
	is(act('id=0&down=')->status(), 200, 'it is controlled');
	return;
}
