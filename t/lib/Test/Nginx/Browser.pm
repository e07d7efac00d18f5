package Test::Nginx::Browser;

# A headless Chromium, driven through chromedriver by the WebDriver protocol
# (https://www.w3.org/TR/webdriver2/), with nothing but the harness's client.
#
#   Test::Nginx::Browser->start($t, width => 1280, height => 900, dark => 0)
#                       starts both; dies when they do not start.  Names below
#                       .example lead to this machine
#   ->open($url)        goes there; returns when the page is loaded
#   ->find($css), ->find_all($css)  an element or undef; all of them
#   ->click($element or $css), ->type($element or $css, $text)
#                       as a person would: dies when the element is covered,
#                       hidden or disabled
#   ->press($keys)      keys for what has the focus; see %KEY
#   ->text($element or $css), ->attribute($element or $css, $name)
#                       what is visible; undef when there is no such element
#   ->run($script, @args)  value that the body of a function returns
#   ->title, ->resize($width, $height)
#   ->console           messages of the page, of level warning and above, since
#                       the last call
#   ->screenshot($file) a PNG of what is visible
#   ->stop              ends both

use v5.36;

use JSON::PP ();
use MIME::Base64 qw/decode_base64/;

use Test::Nginx::HTTP qw/http_request/;
use Test::Nginx::Ports qw/port/;
use Test::Nginx::Process qw/spawn end_process group wait_until/;

# Where the protocol keeps the id of an element.
use constant ELEMENT => 'element-6066-11e4-a52e-4f735466cecf';

our %KEY = (
	Enter => "\x{e007}", Escape => "\x{e00c}", Tab => "\x{e004}",
);

my $json = JSON::PP->new->utf8->allow_nonref->canonical;
my $serial = 0;

sub start ($class, $t, %how) {
	my $dir = $t->testdir() . '/browser-' . ++$serial;
	mkdir $dir or die "$dir: $!\n";
	my $port = port(8990 + $serial);

	# Programs of the desktop must not be looked for, nor the user's profile.
	local @ENV{qw/HOME XDG_CONFIG_HOME XDG_CACHE_HOME/} = ($dir) x 3;
	local $ENV{DBUS_SESSION_BUS_ADDRESS} = '';

	my $self = bless { port => $port, dir => $dir }, $class;
	$self->{pid} = spawn(
		out => "$dir/driver.log", group => 1,
		exec => [ _driver(), "--port=$port" ],
	);
	$t->watch_group($self->{pid});
	wait_until(sub {
		my $r = http_request(port => $port, uri => '/status');
		$r->status() == 200 && $r->json()->{value}{ready};
	}, 20) or die "chromedriver does not start, see $dir/driver.log\n";

	my @args = (
		'--headless', '--no-sandbox', '--disable-gpu', '--disable-quic',
		'--no-first-run', '--disable-background-networking',
		'--disable-component-update', '--disable-sync',
		'--disable-dev-shm-usage', '--no-proxy-server',
		'--disable-crash-reporter', '--disable-breakpad',
		'--host-resolver-rules=MAP *.example 127.0.0.1',
		"--user-data-dir=$dir/profile",
		'--window-size=' . ($how{width} // 1280) . ',' . ($how{height} // 900),
	);
	push @args, '--blink-settings=preferredColorScheme=0' if $how{dark};

	my $session = $self->_call(POST => '/session', {
		capabilities => { alwaysMatch => {
			browserName => 'chrome',
			'goog:chromeOptions' => { args => \@args, binary => _browser() },
			'goog:loggingPrefs' => { browser => 'WARNING' },
		} },
	});
	$self->{session} = $session->{sessionId};

	return $self;
}

# Both programs, or the names of those that are missing.
sub lacks ($class) {
	return join ' and ', (_browser() ? () : 'chromium'),
		(_driver() ? () : 'chromedriver');
}

sub open ($self, $url) { $self->_do(POST => '/url', { url => $url }) }

sub title ($self) { return $self->_do(GET => '/title') }

sub find ($self, $css) { return ($self->find_all($css))[0] }

sub find_all ($self, $css) {
	return map { $_->{ELEMENT()} } @{ $self->_do(
		POST => '/elements', { using => 'css selector', value => $css },
	) };
}

sub click ($self, $element) {
	$self->_on($element, POST => '/click', {});
}

sub type ($self, $element, $text) {
	$self->_on($element, POST => '/clear', {});
	$self->_on($element, POST => '/value', { text => $text }) if $text ne '';
}

sub press ($self, @keys) {
	my @actions = map {
		my $key = $KEY{$_} // $_;
		({ type => 'keyDown', value => $key }, { type => 'keyUp', value => $key });
	} @keys;

	$self->_do(POST => '/actions', { actions => [
		{ type => 'key', id => 'keyboard', actions => \@actions },
	] });
}

sub text ($self, $element) { return $self->_on($element, GET => '/text') }

sub attribute ($self, $element, $name) {
	return $self->_on($element, GET => "/attribute/$name");
}

sub run ($self, $script, @args) {
	return $self->_do(POST => '/execute/sync',
		{ script => $script, args => \@args });
}

sub resize ($self, $width, $height) {
	$self->_do(POST => '/window/rect', { width => $width, height => $height });
}

sub console ($self) {
	return map { $_->{message} }
		@{ $self->_do(POST => '/se/log', { type => 'browser' }) };
}

sub screenshot ($self, $file) {
	CORE::open my $fh, '>:raw', $file or die "$file: $!\n";
	print {$fh} decode_base64($self->_do(GET => '/screenshot'));
	close $fh or die "$file: $!\n";
}

sub stop ($self) {
	my $pid = delete $self->{pid} // return;

	eval { $self->_do(DELETE => '') } if $self->{session};
	end_process($pid);

	# The driver leaves its browser behind where it was not asked politely.
	return if wait_until(sub { !group($pid) }, 5);
	kill KILL => $_ for group($pid);
	wait_until(sub { !group($pid) }, 5);
}

sub DESTROY ($self) {
	local ($@, $?, $!);
	$self->stop();
}

# An element is found anew by its selector, since a page may have replaced it.
sub _on ($self, $element, $method, $path, $body = undef) {
	if ($element !~ /\Af\.|\A[0-9A-F-]{30,}\z/) {
		my $css = $element;
		$element = $self->find($css);
		if (!defined $element) {
			return if $method eq 'GET';
			die "no element \"$css\"\n";
		}
	}

	return $self->_do($method => "/element/$element$path", $body);
}

sub _do ($self, $method, $path, $body = undef) {
	return $self->_call($method,
		'/session/' . ($self->{session} // 'none') . $path, $body);
}

sub _call ($self, $method, $path, $body) {
	my $r = http_request(
		port => $self->{port}, method => $method, uri => $path, timeout => 60,
		headers => { 'Content-Type' => 'application/json' },
		defined $body ? (body => $json->encode($body)) : (),
	);
	my $value = eval { $json->decode($r->body())->{value} };

	die "WebDriver: $method $path: ",
		ref $value ? $value->{message} : $r->error() || $r->status(), "\n"
		if $r->status() != 200;

	return $value;
}

sub _driver () { return _program('chromedriver') }

sub _browser () {
	return _program(qw/chromium chromium-browser google-chrome/);
}

sub _program (@names) {
	for my $name (@names) {
		for my $dir (split /:/, $ENV{PATH}) {
			return "$dir/$name" if -x "$dir/$name";
		}
	}

	return;
}

1;
